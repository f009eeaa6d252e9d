"""Who makes the ``.hbm``: our compiler for the simulator, or the vendor's for the board."""
from mmdet_bpu.backends.choice import BACKENDS, choose_backend
from mmdet_bpu.backends.compile import compile_hbm

__all__ = ['BACKENDS', 'choose_backend', 'compile_hbm']
