"""Loops: one per file."""
from mmdet_bpu.engine.loops.calibration_loop import CalibrationLoop, calibrate
from mmdet_bpu.engine.loops.qat_loop import QATLoop
from mmdet_bpu.engine.loops.quant_val_loop import QuantValLoop

__all__ = ['CalibrationLoop', 'QATLoop', 'QuantValLoop', 'calibrate']
