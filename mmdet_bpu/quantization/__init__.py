"""Fake quantization and calibration of mmdet detectors."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
import mmdet_bpu.quantization.criteria  # noqa: F401  (registers them)
from mmdet_bpu.quantization.prepare import prepare
from mmdet_bpu.quantization.state import (finish_calibration, model_report, quantization_of,
                                          quantized_graphs, saved_form, set_quant_state)

__all__ = ['finish_calibration', 'model_report', 'prepare', 'quantization_of', 'quantized_graphs',
           'saved_form', 'set_quant_state']
