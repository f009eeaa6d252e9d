"""What is particular to a family of detectors."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
