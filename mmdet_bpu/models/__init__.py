"""The few modules that are ours: attention, deformable convolutions and norms for a capture."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
