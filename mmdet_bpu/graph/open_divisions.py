"""Divisions, powers and norms of tensors written as products with table values.

Integers have no division and no power: the divisor goes through a table, and a product follows.
"""
from typing import Any, Optional, Sequence, Union

import torch
from torch import Tensor

from mmdet_bpu.graph.opening import Call, only_where


def _is_no_chain(call: Call) -> bool:
    """A division by a tensor, but not one inside a chain of functions of one value (a table)."""
    numerator, divisor = call.argument(0, 'input'), call.argument(1, 'other')
    if not isinstance(divisor, Tensor):
        return False
    if not call.depends_on_image(divisor):
        return True
    if not call.depends_on_image(numerator):
        return not call.is_number(numerator)
    return not call.is_one_chain(numerator, divisor)


@only_where(_is_no_chain)
def open_div(input: Union[Tensor, float], other: Tensor, *,
             rounding_mode: Optional[str] = None) -> Tensor:
    """``input * reciprocal(other)``: of a constant tensor, the reciprocal is a constant."""
    if rounding_mode is not None:
        return NotImplemented
    return input * torch.reciprocal(other.to(input.dtype))


def _has_tensor_exponent(call: Call) -> bool:
    exponent = call.argument(1, 'exponent')
    return isinstance(exponent, Tensor) and not call.is_number(exponent)


@only_where(_has_tensor_exponent)
def open_pow(input: Union[Tensor, float], exponent: Tensor) -> Tensor:
    """``exp(exponent * log(input))``, for an input that is not negative."""
    if not isinstance(input, Tensor):
        return NotImplemented
    return torch.exp(exponent * torch.log(input))


def open_normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12,
                   out: Optional[Tensor] = None) -> Tensor:
    """``x * rsqrt(max(sum(x * x), eps ** 2))``."""
    if p != 2 or out is not None:
        return NotImplemented
    squares = torch.sum(torch.mul(input, input), dim, keepdim=True)
    return input * torch.rsqrt(squares.clamp(min=eps**2))


def open_norm(input: Tensor,
              p: Any = 2,
              dim: Optional[Union[int, Sequence[int]]] = None,
              keepdim: bool = False,
              out: Optional[Tensor] = None,
              dtype: Optional[torch.dtype] = None) -> Tensor:
    """``sqrt(sum(x * x))``, ``sum(|x|)`` or ``max(|x|)`` over ``dim``.

    Serves ``torch.norm`` and the two of ``torch.linalg``, whose argument is called ``ord``.
    """
    if dim is None or out is not None or dtype is not None:
        return NotImplemented
    if p in (None, 2, 'fro'):
        return torch.sqrt(torch.sum(torch.mul(input, input), dim, keepdim=keepdim))
    if p == 1:
        return torch.sum(torch.abs(input), dim, keepdim=keepdim)
    if p == float('inf'):
        return torch.amax(torch.abs(input), dim, keepdim=keepdim)
    return NotImplemented


def open_linalg_norm(input: Tensor,
                     ord: Any = 2,
                     dim: Optional[Union[int, Sequence[int]]] = None,
                     keepdim: bool = False,
                     **kwargs: Any) -> Tensor:
    """See :func:`open_norm`."""
    return open_norm(input, ord, dim, keepdim, **kwargs)
