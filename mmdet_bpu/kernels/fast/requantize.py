"""Requantization inside compiled loops: the paths of the reference's ``Requantizer``, per element.

    steps = ScaleConstants.of(requantizer)       # once
    ...
    for i in range(n):                           # compiled; one loop per mode that is vectorized
        out[i] = clamp(scale_halves_ties(acc[i], multiplier, shift, half), low, high)

Which mode is exact was proved by the requantizer, from the range of its input. :func:`scale` takes
the mode as an argument, for loops that are not worth a copy per mode.

All arguments are int32, for arithmetic on 32 bits: see :mod:`mmdet_bpu.kernels.fast.int32`.
"""
from dataclasses import dataclass

import numpy as np
from numba import njit

from mmdet_bpu.kernels.fast.int32 import (add, bits_and, bits_or, largest, least, mul, shift_left,
                                            shift_right, shift_right_unsigned)
from mmdet_bpu.kernels.reference.requantizer import Requantizer
from mmdet_bpu.program.dtypes import INT32_MAX

# A remainder below 2**17 times a multiplier below 2**15 fits 32 bits without a sign.
SPLIT_SHIFT = 17
ONE, HALF_WORD, LOW_WORD = np.int32(1), np.int32(16), np.int32(0xffff)

INT32_TIES, INT32, LEFT, HALVES_TIES, HALVES, SPLIT, INT64 = range(7)
"""Modes. The three with a right shift in int32 have a form of their own where no tie can occur."""


@dataclass(frozen=True)
class ScaleConstants:
    """What a loop needs of a requantizer.

    Attributes:
        mode (int): One of the modes above.
        multiplier (np.ndarray): int32, one or one per channel.
        shift (np.ndarray): int32 of the same length, as the mode's function takes it.
        half (np.ndarray): int32 of the same length: the rounding term.
        low (int): Lower end of the result's range.
        high (int): Upper end of the result's range.
    """
    mode: int
    multiplier: np.ndarray
    shift: np.ndarray
    half: np.ndarray
    low: int
    high: int

    @classmethod
    def of(cls, requantizer: Requantizer) -> 'ScaleConstants':
        """The constants of a requantizer."""
        shift = requantizer.shift
        if (requantizer.path == 'int64' and shift.min() >= 1 and shift.max() <= SPLIT_SHIFT
                and requantizer.largest <= INT32_MAX):
            mode, half = SPLIT, (1 << shift - 1) - 1
        elif requantizer.path == 'int64':
            mode, half = INT64, np.zeros_like(shift)
            shift = np.maximum(shift, -31)  # saturates all but 0
        elif requantizer.path == 'int32' and shift[0] <= 0:
            # A shift beyond 31 has passed for an input that is always 0.
            mode, half, shift = LEFT, np.zeros_like(shift), np.minimum(-shift, 31)
        else:
            halves = requantizer.path == 'halves'
            mode = (HALVES_TIES if halves else INT32_TIES) + (0 if requantizer.ties else 1)
            shift = shift - 16 if halves else shift
            half = (1 << shift - 1) - int(requantizer.ties)
        pairs = (np.ascontiguousarray(array, np.int32) for array in
                 (requantizer.multiplier, shift, half))
        return cls(mode, *pairs, requantizer.low, requantizer.high)


@njit(nogil=True)
def clamp(value: int, low: int, high: int) -> int:
    """``value`` within [low, high], all int32."""
    return least(largest(value, low), high)


@njit(nogil=True)
def _round_ties(value: int, shift: int, half: int) -> int:
    odd = bits_and(shift_right(value, shift), ONE)
    return shift_right(add(add(value, odd), half), shift)


@njit(nogil=True)
def scale_int32_ties(acc: int, multiplier: int, shift: int, half: int) -> int:
    """``rhe(acc * multiplier / 2**shift)``, half = 2**(shift - 1) - 1."""
    return _round_ties(mul(acc, multiplier), shift, half)


@njit(nogil=True)
def scale_int32(acc: int, multiplier: int, shift: int, half: int) -> int:
    """Where no tie can occur: half = 2**(shift - 1)."""
    return shift_right(add(mul(acc, multiplier), half), shift)


@njit(nogil=True)
def scale_left(acc: int, multiplier: int, shift: int) -> int:
    """``acc * multiplier * 2**shift``."""
    return shift_left(mul(acc, multiplier), shift)


@njit(nogil=True)
def scale_halves_ties(acc: int, multiplier: int, shift: int, half: int) -> int:
    """``rhe(acc * multiplier / 2**(shift + 16))``; the lowest bit of the high word is sticky."""
    low = mul(bits_and(acc, LOW_WORD), multiplier)
    high = add(mul(shift_right(acc, HALF_WORD), multiplier), shift_right(low, HALF_WORD))
    lost = shift_right(add(bits_and(low, LOW_WORD), LOW_WORD), HALF_WORD)
    return _round_ties(bits_or(high, lost), shift, half)


@njit(nogil=True)
def scale_halves(acc: int, multiplier: int, shift: int, half: int) -> int:
    """Where no tie can occur."""
    low = mul(bits_and(acc, LOW_WORD), multiplier)
    high = add(mul(shift_right(acc, HALF_WORD), multiplier), shift_right(low, HALF_WORD))
    return shift_right(add(high, half), shift)


@njit(nogil=True)
def scale_split(acc: int, multiplier: int, shift: int, half: int) -> int:
    """``acc = whole * 2**shift + rest``: whole * multiplier, and rest * multiplier / 2**shift.

    half = 2**(shift - 1) - 1. For a shift of at most 17 and a result within int32.
    """
    mask = add(add(half, half), ONE)
    product = mul(bits_and(acc, mask), multiplier)  # below 2**32, read without a sign
    below = add(mul(shift_right(acc, shift), multiplier), shift_right_unsigned(product, shift))
    rest = add(add(bits_and(product, mask), half), bits_and(below, ONE))
    return add(below, shift_right(rest, shift))


@njit(nogil=True)
def scale_int64(acc: int, multiplier: int, shift: int, low: int, high: int) -> int:
    """Any range and shift, clamped to [low, high] already; shift is that of the contract."""
    value = np.int64(acc) * np.int64(multiplier)
    if shift > 0:
        half = (np.int64(1) << np.int64(shift - 1)) - 1
        value = (value + half + ((value >> np.int64(shift)) & 1)) >> np.int64(shift)
        return np.int32(min(max(value, np.int64(low)), np.int64(high)))
    value = min(max(value, np.int64(low) - 1), np.int64(high) + 1) << np.int64(-shift)
    return np.int32(min(max(value, np.int64(low)), np.int64(high)))


@njit(nogil=True)
def scale(acc: int, mode: int, multiplier: int, shift: int, half: int, low: int,
          high: int) -> int:
    """Requantize by a mode that is known when it runs; clamped to [low, high]."""
    if mode == HALVES:
        value = scale_halves(acc, multiplier, shift, half)
    elif mode == HALVES_TIES:
        value = scale_halves_ties(acc, multiplier, shift, half)
    elif mode == INT32:
        value = scale_int32(acc, multiplier, shift, half)
    elif mode == INT32_TIES:
        value = scale_int32_ties(acc, multiplier, shift, half)
    elif mode == LEFT:
        value = scale_left(acc, multiplier, shift)
    elif mode == SPLIT:
        value = scale_split(acc, multiplier, shift, half)
    else:
        value = scale_int64(acc, multiplier, shift, low, high)
    return np.int32(clamp(value, low, high))
