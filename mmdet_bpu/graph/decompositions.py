"""Softmax, norms and divisions written as the primitives that integers have.

Each function has the signature of the torch function that it opens up. It returns
``NotImplemented`` where the call is none of its business. One with an attribute ``applies``, a
function of the same arguments, is used only where that is true.
"""
from typing import Any, Callable, Dict, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.graph.open_pooling import open_adaptive_avg_pool2d, open_avg_pool2d


def open_softmax(input: Tensor, dim: Optional[int] = None, *args: Any, **kwargs: Any) -> Tensor:
    """``exp(x - max(x)) * reciprocal(sum(exp(x - max(x))))``."""
    if dim is None:
        return NotImplemented
    shifted = input - torch.amax(input, dim, keepdim=True)
    powers = torch.exp(shifted)
    return powers * torch.reciprocal(torch.sum(powers, dim, keepdim=True))


def open_layer_norm(input: Tensor,
                    normalized_shape: Sequence[int],
                    weight: Optional[Tensor] = None,
                    bias: Optional[Tensor] = None,
                    eps: float = 1e-5) -> Tensor:
    """``(x - mean) * rsqrt(mean((x - mean) ** 2) + eps) * weight + bias``."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - torch.mean(input, dims, keepdim=True)
    variance = torch.mean(torch.mul(centred, centred), dims, keepdim=True)
    output = centred * torch.rsqrt(variance + eps)
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def open_group_norm(input: Tensor,
                    num_groups: int,
                    weight: Optional[Tensor] = None,
                    bias: Optional[Tensor] = None,
                    eps: float = 1e-5) -> Tensor:
    """Group norm of ``(N, C, H, W)``, channels last, its long means in two steps.

    One mean over (W, channels of the group), a second one over H: a group of a large map has
    more elements than one reduction may add up.
    """
    if input.dim() != 4:
        return NotImplemented
    batch, channels, height, width = input.shape
    x = input.permute(0, 2, 3, 1).reshape(batch, height, width, num_groups, -1)

    def mean(value: Tensor) -> Tensor:
        return torch.mean(torch.mean(value, (2, 4), keepdim=True), 1, keepdim=True)

    centred = x - mean(x)
    variance = mean(torch.mul(centred, centred))
    output = (centred * torch.rsqrt(variance + eps)).reshape(batch, height, width, channels)
    output = output if weight is None else output * weight
    output = output if bias is None else output + bias
    return output.permute(0, 3, 1, 2)


def open_batch_norm(input: Tensor,
                    running_mean: Optional[Tensor],
                    running_var: Optional[Tensor],
                    weight: Optional[Tensor] = None,
                    bias: Optional[Tensor] = None,
                    training: bool = False,
                    momentum: float = 0.1,
                    eps: float = 1e-5) -> Tensor:
    """A batch norm that no convolution took in: ``x * scale + shift`` with frozen statistics.

    Of feature maps it is a convolution of every channel with one weight: one rounding, and a relu
    or a residual joins it. Frozen in training too, as the statistics that are folded are.
    """
    if running_mean is None:
        return NotImplemented
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    if input.dim() == 4:
        return F.conv2d(input, scale.view(-1, 1, 1, 1), shift, groups=len(scale))
    shape = (1, -1) + (1, ) * (input.dim() - 2)
    return input * scale.view(shape) + shift.view(shape)


def open_div(input: Tensor, other: Tensor, *, rounding_mode: Optional[str] = None) -> Tensor:
    """Division by a constant tensor is a multiplication with its reciprocal."""
    if rounding_mode is not None or not isinstance(other, Tensor):
        return NotImplemented
    return input * torch.reciprocal(other.to(input.dtype))


# Only opened where the second argument does not depend on the image.
open_div.needs_constant_divisor = True

DECOMPOSITIONS: Dict[Callable, Callable] = {
    torch.softmax: open_softmax,
    F.softmax: open_softmax,
    Tensor.softmax: open_softmax,
    F.layer_norm: open_layer_norm,
    F.group_norm: open_group_norm,
    F.batch_norm: open_batch_norm,
    F.adaptive_avg_pool2d: open_adaptive_avg_pool2d,
    F.avg_pool2d: open_avg_pool2d,
    torch.div: open_div,
    Tensor.div: open_div,
    Tensor.__truediv__: open_div,
}
