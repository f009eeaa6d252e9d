"""Activations of more than one tensor written in elementwise operations."""
from typing import Optional, Union

import torch
from torch import Tensor

from mmdet_bpu.graph.opening import Call, only_where

Bound = Optional[Union[float, Tensor]]


def open_prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``max(x, 0) + weight * min(x, 0)``; one slope, or one per channel."""
    if weight.numel() > 1:
        weight = weight.view(1, -1, *(1, ) * (input.dim() - 2))
    return torch.relu(input) + weight * torch.clamp(input, max=0)


def _has_tensor_bound(call: Call) -> bool:
    bounds = call.argument(1, 'min'), call.argument(2, 'max')
    return any(isinstance(bound, Tensor) and not call.is_number(bound) for bound in bounds)


@only_where(_has_tensor_bound)
def open_clamp(input: Tensor, min: Bound = None, max: Bound = None) -> Tensor:
    """``minimum(maximum(x, min), max)``."""
    for bound, choose, name in ((min, torch.maximum, 'min'), (max, torch.minimum, 'max')):
        if isinstance(bound, Tensor):
            input = choose(input, bound)
        elif bound is not None:
            input = torch.clamp(input, **{name: bound})
    return input
