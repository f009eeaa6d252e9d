"""Integer arithmetic that every backend keeps: ranges, rounding, saturation, requantization.

Everything here works on integers. Rounding is to nearest, ties to even, and is decided by
integer shifts, never by a floating-point rounding mode. ``docs/numerics.md`` is the written
form of this contract.
"""
import math
from dataclasses import dataclass
from typing import Iterable, Sequence, Union

import numpy as np
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import DTYPE_NAMES, TORCH_DTYPES, integer_range
from mmdet_bpu.program.integer_rules import MULTIPLIER_BITS, multiplier_fault

# From this shift on, |acc * multiplier| <= 2**46 is at most half of 2**shift: the result is 0.
ZERO_SHIFT = 47

IntLike = Union[int, Sequence[int], np.ndarray]


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Write a ratio of scales as ``multiplier / 2**shift``.

    Args:
        real (float): Ratio, finite and not negative.

    Returns:
        tuple[int, int]: Multiplier in [2**14, 2**15) and shift of any sign, or (0, 0) for 0. The
        relative error is at most 2**-15.

    Raises:
        BpuError: if ``real`` is negative, infinite or not a number.
    """
    real = float(real)
    if not math.isfinite(real) or real < 0:
        raise BpuError(f'a requantization ratio must be finite and not negative, found {real}: '
                       'check the scales that it was made from')
    if real == 0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    multiplier = round(math.ldexp(fraction, MULTIPLIER_BITS))  # exact product, ties to even
    if multiplier == 1 << MULTIPLIER_BITS:
        multiplier, exponent = multiplier >> 1, exponent + 1
    return multiplier, MULTIPLIER_BITS - exponent


def quantize_multipliers(reals: Iterable[float]) -> tuple[list[int], list[int]]:
    """:func:`quantize_multiplier` of each ratio, as (multipliers, shifts)."""
    pairs = [quantize_multiplier(real) for real in np.asarray(reals, np.float64).ravel()]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def saturate(value: torch.Tensor, dtype: str) -> torch.Tensor:
    """Clamp to the range of ``dtype`` and convert to its torch dtype."""
    return value.clamp(*integer_range(dtype)).to(TORCH_DTYPES[dtype])


def requantize(acc: torch.Tensor, multiplier: IntLike, shift: IntLike, dtype: str,
               relu: bool = False) -> torch.Tensor:
    """``saturate(round_half_even(acc * multiplier / 2**shift))``: the definition, in int64.

    The kernels use :class:`mmdet_bpu.kernels.reference.requantizer.Requantizer`, which chooses a faster
    equal path.

    Args:
        acc (torch.Tensor): Integers within int32, shape (..., C).
        multiplier: One multiplier, or C.
        shift: One shift, or C.
        dtype (str): Element type of the result.
        relu (bool): Clamp at 0 as well.

    Returns:
        torch.Tensor: Shape (..., C), torch dtype of ``dtype``.
    """
    multiplier, shift = broadcast_pair(multiplier, shift)
    low, high = integer_range(dtype)
    value = scale_int64(acc, multiplier, shift, low, high)
    return value.clamp(0 if relu else low, high).to(TORCH_DTYPES[dtype])


def scale_int64(acc: torch.Tensor, multiplier: np.ndarray, shift: np.ndarray, low: int,
                high: int) -> torch.Tensor:
    """``round_half_even(acc * multiplier / 2**shift)`` in int64 for any shift.

    A product that a left shift would push out of int64 is first clamped just outside
    [low, high], where it saturates alike.

    Returns:
        torch.Tensor: int64; values outside [low, high] only say on which side they are.
    """
    device = acc.device
    value = acc.to(torch.int64) * torch.as_tensor(multiplier, device=device)
    right = np.clip(shift, 0, 62)
    half = np.where(right > 0, (1 << np.maximum(right, 1) - 1) - 1, 0)
    right_t = torch.as_tensor(right, device=device)
    odd = (value >> right_t) & torch.as_tensor((right > 0).astype(np.int64), device=device)
    value = (value + odd + torch.as_tensor(half, device=device)) >> right_t
    if (shift < 0).any():
        value = value.clamp(low - 1, high + 1)
        value = value << torch.as_tensor(np.clip(-shift, 0, 31), device=device)
    return value


def broadcast_pair(multiplier: IntLike, shift: IntLike) -> tuple[np.ndarray, np.ndarray]:
    """Check a (multiplier, shift) attribute pair and return both as int64 arrays of one length.

    Raises:
        BpuError: if lengths differ or a multiplier is outside 0 and [2**14, 2**15).
    """
    multiplier = np.atleast_1d(np.asarray(multiplier, np.int64))
    shift = np.atleast_1d(np.asarray(shift, np.int64))
    if multiplier.ndim != 1 or multiplier.shape != shift.shape:
        raise BpuError(f'multiplier and shift must be lists of one length, found shapes '
                       f'{multiplier.shape} and {shift.shape}')
    fault = multiplier_fault(multiplier)
    if fault:
        raise BpuError(f'multiplier {fault}')
    return multiplier, shift


@dataclass(frozen=True)
class Operand:
    """What is known of an instruction's operand before it runs.

    Attributes:
        dtype (str): Element type.
        shape (tuple[int, ...]): Static shape.
        constant (torch.Tensor | None): Its value, where the program holds it.
    """

    dtype: str
    shape: tuple[int, ...]
    constant: Union[torch.Tensor, None] = None

    @classmethod
    def of(cls, tensor: torch.Tensor, constant: bool = False) -> 'Operand':
        """Describe a tensor; with ``constant`` its values may be used too."""
        return cls(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), tensor if constant else None)
