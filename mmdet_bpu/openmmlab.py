"""Importing this module makes the process fit for mmdet: versions checked, ``mmcv._ext`` stood in for.

Every package of ours that imports mmdet, mmengine or mmcv imports it first; the others (``program``,
``kernels``, ``executors``, ``hbir``, ``compiler``, ``runtime``) have no effect on a process.
"""
from mmdet_bpu.compat import check_versions, install_ext_stand_in

check_versions()
install_ext_stand_in()
