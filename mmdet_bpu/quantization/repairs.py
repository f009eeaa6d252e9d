"""What ``bpu.calibration`` may have done to float weights, before they are calibrated and after."""
from copy import deepcopy
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.quantization.bias_correction import correct_bias
from mmdet_bpu.quantization.block_rounding import round_blocks
from mmdet_bpu.quantization.equalization import equalize
from mmdet_bpu.quantization.product_inputs import Product, ProductInputs, products_of
from mmdet_bpu.quantization.quantized_detector import Quantization
from mmdet_bpu.quantization.rounding import ITERATIONS, round_best
from mmdet_bpu.quantization.statistics import from_first_rank

ON_IMAGES = ('adaround', 'bias_correction')
"""Those that need scales, and the images once more."""
LAYER, BLOCK = 'layer', 'block'
"""Values of ``bpu.calibration.adaround.by``."""
BATCHES = 8
REPAIRS = ('equalize', *ON_IMAGES)
"""Fields of ``bpu.calibration``."""


class Rounding(NamedTuple):
    """How ``bpu.calibration.adaround`` learns.

    Attributes:
        iterations (int): Of each layer, and of each block.
        by_block (bool): Whether the layers of a block are learned together.
        batches (int): Of images that blocks are learned and judged with.
    """
    iterations: int = ITERATIONS
    by_block: bool = False
    batches: int = BATCHES


def rounding_of(settings: Dict[str, Any]) -> Optional[Rounding]:
    """The rounding that ``bpu`` settings ask for, if any is to be learned."""
    asked = repairs_of(settings)['adaround']
    if isinstance(asked, Mapping):
        return Rounding(asked['iterations'], asked['by'] == BLOCK, asked['batches'])
    return None if asked is False else Rounding() if asked is True else Rounding(asked)


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
    return ProductInputs(quant, second=rounding_of(quant.settings) is not None)


@torch.no_grad()
def repair_calibrated(model: nn.Module, quant: Quantization, inputs: ProductInputs,
                      forwards: Sequence[Callable[[nn.Module], Any]] = (),
                      say: Callable[[str], None] = lambda line: None) -> None:
    """Repair a detector that has its scales, in place.

    Args:
        model (nn.Module): The detector.
        quant (Quantization): Its quantization.
        inputs (ProductInputs): Has seen images, of all ranks.
        forwards (Sequence[Callable]): Functions (detector) that run a batch each, for blocks.
        say (Callable): Takes lines of progress. Defaults to nobody.
    """
    parameters = dict(model.named_parameters())
    products: Dict[str, Product] = {}
    for network in quant.networks:
        for product in products_of(network, quant):
            if product.weight in inputs.moments and product.weight in parameters:
                products.setdefault(product.weight, product)
    meant = {name: parameters[name].clone() for name in products}
    rounding = rounding_of(quant.settings)
    if rounding is not None:
        _round(model, quant, inputs, rounding, meant, forwards, say)
    for name, product in products.items():
        if repairs_of(quant.settings)['bias_correction'] and product.bias in parameters:
            correct_bias(parameters[product.bias], parameters[name], inputs.moments[name],
                         quant.reach.of(name), meant[name])
    quant.remember_weights(model)


def _round(model: nn.Module, quant: Quantization, inputs: ProductInputs, rounding: Rounding,
           meant: Dict[str, Tensor], forwards: Sequence[Callable[[nn.Module], Any]],
           say: Callable[[str], None]) -> None:
    """Learn the rounding of weights, in place; layer by layer, then block by block where asked for."""
    parameters = dict(model.named_parameters())
    float_model = deepcopy(model) if rounding.by_block else None
    reaches = {name: reach if reach is None else reach.clone()
               for name, reach in ((name, quant.reach.of(name)) for name in meant)}
    for name, weight in meant.items():
        parameters[name].copy_(round_best(weight, inputs.moments[name].products, reaches[name],
                                          rounding.iterations))
        quant.reach.whole(name)
    if float_model is not None:
        round_blocks(model, float_model, forwards, meant, reaches, rounding.iterations, say)
        from_first_rank([parameters[name] for name in meant])
