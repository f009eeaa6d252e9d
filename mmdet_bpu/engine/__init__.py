"""Training stages inside mmengine: runner, loops, hooks, settings, weights."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
