"""Capture, fake quantization and calibration of mmdet detectors."""
from mmdet_bpu.quantization.capture import CapturedGraph, capture
from mmdet_bpu.quantization.prepare import (finish_calibration, model_report, prepare,
                                            quantization_of, set_quant_state)

__all__ = [
    'CapturedGraph', 'capture', 'finish_calibration', 'model_report', 'prepare', 'quantization_of',
    'set_quant_state'
]
