"""Softmax and norms written as the primitives that integers have, and the table of what is opened.

Each function has the signature of the torch function that it opens up. It returns
``NotImplemented`` where the call is none of its business.
"""
from math import prod
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.graph.open_activations import open_clamp, open_prelu
from mmdet_bpu.graph.open_comparisons import open_ge, open_gt, open_le, open_lt
from mmdet_bpu.graph.open_divisions import (open_div, open_linalg_norm, open_norm, open_normalize,
                                            open_pow)
from mmdet_bpu.graph.open_moments import open_std, open_var
from mmdet_bpu.graph.open_pooling import (LONGEST_REDUCTION, open_adaptive_avg_pool2d,
                                          open_avg_pool2d)
from mmdet_bpu.graph.open_products import (open_addmm, open_einsum,
                                           open_scaled_dot_product_attention)
from mmdet_bpu.graph.opening import ALWAYS_OPENED, Call, Decomposition, only_where


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


def _reduced_dims(x: Tensor, dims: Any) -> List[int]:
    if dims is None or dims == ():
        return list(range(x.dim()))
    return [d % x.dim() for d in (dims if isinstance(dims, (tuple, list)) else (dims, ))]


def _is_long(call: Call) -> bool:
    """A reduction of more elements than the unit adds up, over several dimensions."""
    x = call.argument(0, 'input')
    dims = _reduced_dims(x, call.argument(1, 'dim'))
    return len(dims) > 1 and prod(x.shape[d] for d in dims) > LONGEST_REDUCTION


def _in_steps(reduce: Callable) -> Decomposition:

    def opened(input: Tensor, dim: Any = None, keepdim: bool = False, *,
               dtype: Optional[torch.dtype] = None) -> Tensor:
        """One dimension after the other, from the last one on."""
        if dtype is not None:
            return NotImplemented
        for d in sorted(_reduced_dims(input, dim), reverse=True):
            input = reduce(input, d, keepdim=keepdim)
        return input

    return only_where(_is_long)(opened)


open_sum, open_mean = _in_steps(torch.sum), _in_steps(torch.mean)


DECOMPOSITIONS: Dict[Callable, Decomposition] = {
    torch.softmax: open_softmax,
    F.softmax: open_softmax,
    Tensor.softmax: open_softmax,
    F.layer_norm: open_layer_norm,
    F.group_norm: open_group_norm,
    F.adaptive_avg_pool2d: open_adaptive_avg_pool2d,
    F.avg_pool2d: open_avg_pool2d,
    torch.sum: open_sum,
    Tensor.sum: open_sum,
    torch.mean: open_mean,
    Tensor.mean: open_mean,
    torch.div: open_div,
    Tensor.div: open_div,
    Tensor.__truediv__: open_div,
    torch.pow: open_pow,
    Tensor.pow: open_pow,
    Tensor.__pow__: open_pow,
    F.normalize: open_normalize,
    torch.norm: open_norm,
    Tensor.norm: open_norm,
    torch.linalg.norm: open_linalg_norm,
    torch.linalg.vector_norm: open_linalg_norm,
    **dict.fromkeys((torch.var, Tensor.var), open_var),
    **dict.fromkeys((torch.std, Tensor.std), open_std),
    **dict.fromkeys((torch.gt, torch.greater, Tensor.gt, Tensor.greater, Tensor.__gt__), open_gt),
    **dict.fromkeys((torch.ge, torch.greater_equal, Tensor.ge, Tensor.greater_equal,
                     Tensor.__ge__), open_ge),
    **dict.fromkeys((torch.lt, torch.less, Tensor.lt, Tensor.less, Tensor.__lt__), open_lt),
    **dict.fromkeys((torch.le, torch.less_equal, Tensor.le, Tensor.less_equal,
                     Tensor.__le__), open_le),
    F.prelu: open_prelu,
    torch.prelu: open_prelu,
    Tensor.prelu: open_prelu,
    torch.clamp: open_clamp,
    Tensor.clamp: open_clamp,
    torch.clip: open_clamp,
    Tensor.clip: open_clamp,
    torch.einsum: open_einsum,
    torch.addmm: open_addmm,
    Tensor.addmm: open_addmm,
    torch.baddbmm: open_addmm,
    Tensor.baddbmm: open_addmm,
    F.scaled_dot_product_attention: open_scaled_dot_product_attention,
    **ALWAYS_OPENED,
}

NORMALISING = frozenset(('softmax', 'layer_norm', 'group_norm', 'batch_norm', 'normalize', 'norm',
                         'linalg_norm', 'linalg_vector_norm', 'std', 'var'))
"""Names of opened functions inside which small numbers decide: int16 by default."""
DIVISIONS = frozenset(('div', 'truediv', 'true_divide', 'itruediv'))
"""Names of opened divisions."""
LONG_REDUCTIONS = frozenset(('sum', 'mean', 'adaptive_avg_pool2d'))
"""Names of reductions that are opened into steps."""
