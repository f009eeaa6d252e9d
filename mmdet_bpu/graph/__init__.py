"""What a detector computes: capture, sites and the operation graph."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
