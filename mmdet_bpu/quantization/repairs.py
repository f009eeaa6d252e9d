"""What ``bpu.calibration`` may have done to float weights before they are calibrated."""
from typing import Any, Dict

from torch import nn

from mmdet_bpu.quantization.equalization import equalize
from mmdet_bpu.quantization.quant_mode import Quantization

REPAIRS = ('equalize', )
"""Fields of ``bpu.calibration``."""


def repairs_of(settings: Dict[str, Any]) -> Dict[str, Any]:
    """The repairs that ``bpu`` settings ask for, by field."""
    calibration = settings.get('calibration') or {}
    return {name: calibration.get(name, False) for name in REPAIRS}


def repair(model: nn.Module, quant: Quantization) -> None:
    """Repair a detector, in place; its float function stays."""
    if repairs_of(quant.settings)['equalize']:
        for network in quant.networks:
            equalize(model, network)
        quant.remember_weights(model)
