"""Bias correction: the mean error that rounding adds to a product is taken off its bias.

The rounding of weights and of the input moves the mean of an output channel. The mean of a product
is the product of the mean: ``E[Wq xq] - E[W x] = Wq E[xq] - W E[x]``, which is taken off the bias.
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2, with means of real images, of the input's rounding too, and without the shift that
earlier layers caused, which is taken off there.
"""
from typing import Optional

import torch
from torch import Tensor

from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.product_inputs import Moments


def mean_error(weight: Tensor, rounded: Tensor, moments: Moments) -> Tensor:
    """Of each output channel, what rounding adds to its mean, float64 (O, ).

    Args:
        weight (Tensor): Output channels first.
        rounded (Tensor): The same on its grid.
        moments (Moments): Of the input.
    """
    groups = len(moments.real)

    def mean(values: Tensor, total: Tensor) -> Tensor:
        rows = values.detach().double().view(groups, len(values) // groups, -1)
        return torch.bmm(rows, (total / moments.count).unsqueeze(-1)).flatten()

    return mean(rounded, moments.rounded) - mean(weight, moments.real)


@torch.no_grad()
def correct_bias(bias: Tensor, weight: Tensor, moments: Moments, reach: Optional[Tensor],
                 before: Optional[Tensor] = None) -> None:
    """Take the mean error off a bias, in place.

    Args:
        bias (Tensor): (O, ).
        weight (Tensor): As it is rounded to its grid.
        moments (Moments): Of the input.
        reach (Tensor, optional): Of the weight.
        before (Tensor, optional): The weight that was meant, if it is another.
    """
    rounded = fake_quantize_weight(weight, reach=reach)
    bias -= mean_error(weight if before is None else before, rounded, moments).to(bias)
