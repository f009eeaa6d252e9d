"""Take MMDetection detectors to a BPU: float, calibration, QAT, exact integers, HBIR, hbm."""
from mmdet_bpu.version import __version__

__all__ = ['__version__']
