"""The few modules that are ours, and the tensor path of mmdet's detectors."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
