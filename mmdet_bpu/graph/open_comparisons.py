"""Comparisons of tensors written as the sign of their difference.

Of floating-point numbers the difference has the sign that the comparison asks for, however small it
is (IEEE 754 underflows gradually), so opening one changes no bit. The difference is a tensor like
any other and is rounded; its integers' sign is exact.
"""
from typing import Callable, Union

from torch import Tensor

from mmdet_bpu.graph.opening import Call, Decomposition, only_where


def _compares_floats(call: Call) -> bool:
    left, right = call.argument(0, 'input'), call.argument(1, 'other')
    return all(value.is_floating_point() if isinstance(value, Tensor)
               else isinstance(value, (int, float)) for value in (left, right))


def _is_no_sign(call: Call) -> bool:
    """Not ``x > 0`` or ``x >= 0`` yet, which has an integer form."""
    right = call.argument(1, 'other')
    return _compares_floats(call) and (isinstance(right, Tensor) or right != 0)


def _opened(sign: Callable[[Tensor], Tensor], exchanged: bool) -> Decomposition:

    def opened(input: Tensor, other: Union[Tensor, float]) -> Tensor:
        """The sign of ``input - other``, or of ``other - input``."""
        return sign(other - input if exchanged else input - other)

    return only_where(_compares_floats if exchanged else _is_no_sign)(opened)


open_gt = _opened(lambda difference: difference > 0, exchanged=False)
open_ge = _opened(lambda difference: difference >= 0, exchanged=False)
open_lt = _opened(lambda difference: difference > 0, exchanged=True)
open_le = _opened(lambda difference: difference >= 0, exchanged=True)
