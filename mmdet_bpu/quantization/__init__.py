"""Capture, fake quantization and calibration of mmdet detectors."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
from mmdet_bpu.quantization.prepare import (finish_calibration, model_report, prepare,
                                            quantization_of, set_quant_state)

__all__ = [
    'finish_calibration', 'model_report', 'prepare', 'quantization_of',
    'set_quant_state'
]
