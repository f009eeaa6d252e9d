"""What quantization did to a model, measured."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
