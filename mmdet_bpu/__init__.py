"""Take MMDetection detectors to a BPU: float, calibration, QAT, exact integers, HBIR, hbm."""
from mmdet_bpu.compat import check_versions, install_ext_stand_in
from mmdet_bpu.version import __version__

check_versions()
install_ext_stand_in()

__all__ = ['__version__']
