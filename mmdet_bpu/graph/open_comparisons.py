"""Comparisons of tensors written as the sign of their difference.

Of floating-point numbers the difference has the sign that the comparison asks for, however small it
is (IEEE 754 underflows gradually), so opening one changes no bit. The difference is a tensor like
any other and is rounded; its integers' sign is exact.
"""
from typing import Union

from torch import Tensor

from mmdet_bpu.graph.opening import Call, only_where


def _compares_floats(call: Call) -> bool:
    left, right = call.argument(0, 'input'), call.argument(1, 'other')
    return all(value.is_floating_point() if isinstance(value, Tensor)
               else isinstance(value, (int, float)) for value in (left, right))


def _is_no_sign(call: Call) -> bool:
    """Not ``x > 0`` or ``x >= 0`` yet, which has an integer form."""
    right = call.argument(1, 'other')
    return _compares_floats(call) and (isinstance(right, Tensor) or right != 0)


@only_where(_is_no_sign)
def open_gt(input: Tensor, other: Union[Tensor, float]) -> Tensor:
    """``input - other > 0``."""
    return input - other > 0


@only_where(_is_no_sign)
def open_ge(input: Tensor, other: Union[Tensor, float]) -> Tensor:
    """``input - other >= 0``."""
    return input - other >= 0


@only_where(_compares_floats)
def open_lt(input: Tensor, other: Union[Tensor, float]) -> Tensor:
    """``other - input > 0``."""
    return other - input > 0


@only_where(_compares_floats)
def open_le(input: Tensor, other: Union[Tensor, float]) -> Tensor:
    """``other - input >= 0``."""
    return other - input >= 0
