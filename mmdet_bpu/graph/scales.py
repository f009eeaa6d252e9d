"""Scales that follow from a tensor alone: of weights, and of constant operands."""
from typing import Optional

import torch
from torch import Tensor

from mmdet_bpu.program.dtypes import integer_range

SMALLEST_SCALE = 2.0**-60  # a tensor that is all zeros still needs a positive scale
LARGEST_SCALE = 2.0**60  # its products with integers are far from the end of float32


def weight_scale(weight: Tensor, dtype: str = 'int8', reach: Optional[Tensor] = None) -> Tensor:
    """Scale per output channel (dim 0): largest magnitude over the largest integer.

    Args:
        weight (Tensor): Output channels first.
        dtype (str): ``int8`` or ``int16``.
        reach (Tensor, optional): Share of its largest magnitude that the integers of each channel reach
            to. Defaults to all of it.
    """
    _, high = integer_range(dtype)
    magnitude = weight.detach().float().flatten(1).abs().amax(1)
    if reach is not None:
        magnitude = magnitude * reach
    return torch.clamp(magnitude / high, min=SMALLEST_SCALE)


def constant_scale(x: Tensor, dtype: str) -> Tensor:
    """Scale of a constant operand: its largest finite magnitude over the largest integer."""
    magnitude = x.detach().float().abs()
    magnitude = torch.where(torch.isfinite(magnitude), magnitude, torch.zeros_like(magnitude))
    return torch.clamp(magnitude.max() / integer_range(dtype)[1], min=SMALLEST_SCALE)


def number_on_grid(number: float, scale: float, dtype: str) -> float:
    """A number put among integers of ``dtype`` and ``scale``; as it is among accumulators.

    The same float32 steps as a fake quantizer's.
    """
    if dtype == 'int32':
        return number
    factor = torch.tensor(scale)
    return torch.tensor(number).div(factor).round().clamp(*integer_range(dtype)).mul(factor).item()
