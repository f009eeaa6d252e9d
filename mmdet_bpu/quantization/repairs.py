"""What ``bpu.calibration`` may have done to float weights, before they are calibrated and after."""
from typing import Any, Dict

import torch
from torch import nn

from mmdet_bpu.quantization.bias_correction import correct_bias
from mmdet_bpu.quantization.equalization import equalize
from mmdet_bpu.quantization.product_inputs import ProductInputs, products_of
from mmdet_bpu.quantization.quantized_detector import Quantization
from mmdet_bpu.quantization.rounding import ITERATIONS, round_best

ON_IMAGES = ('adaround', 'bias_correction')
"""Those that need scales, and the images once more."""
REPAIRS = ('equalize', *ON_IMAGES)
"""Fields of ``bpu.calibration``."""


def repairs_of(settings: Dict[str, Any]) -> Dict[str, Any]:
    """The repairs that ``bpu`` settings ask for, by field."""
    calibration = settings.get('calibration') or {}
    return {name: calibration.get(name, False) for name in REPAIRS}


def repair(model: nn.Module, quant: Quantization) -> None:
    """Repair a detector before it is calibrated, in place; its float function stays."""
    if repairs_of(quant.settings)['equalize']:
        gammas = {f'{path}.weight': norm.weight for path, norm in quant.norms.items()}
        for network in quant.networks:
            equalize(model, network, gammas)
        quant.remember_weights(model)


def repairs_on_images(settings: Dict[str, Any]) -> bool:
    """Whether ``bpu`` settings ask for a repair of the calibrated detector."""
    asked = repairs_of(settings)
    return any(asked[name] is not False for name in ON_IMAGES)


def watch_products(quant: Quantization) -> ProductInputs:
    """What is to see the images for the repairs that are asked for."""
    return ProductInputs(quant, second=repairs_of(quant.settings)['adaround'] is not False)


@torch.no_grad()
def repair_calibrated(model: nn.Module, quant: Quantization, inputs: ProductInputs) -> None:
    """Repair a detector that has its scales, in place.

    Args:
        model (nn.Module): The detector.
        quant (Quantization): Its quantization.
        inputs (ProductInputs): Has seen images, of all ranks.
    """
    asked, parameters = repairs_of(quant.settings), dict(model.named_parameters())
    iterations = ITERATIONS if asked['adaround'] is True else asked['adaround']
    done = set()
    for network in quant.networks:
        for product in products_of(network, quant):
            name, moments = product.weight, inputs.moments.get(product.weight)
            if name in done or moments is None or name not in parameters:
                continue
            done.add(name)
            weight, reach = parameters[name], quant.reach.of(name)
            before = weight.clone()
            if iterations is not False:
                weight.copy_(round_best(weight, moments.products, reach, iterations))
                quant.reach.whole(name)
            if asked['bias_correction'] and product.bias in parameters:
                correct_bias(parameters[product.bias], weight, moments, quant.reach.of(name), before)
    quant.remember_weights(model)
