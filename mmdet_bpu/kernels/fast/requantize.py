"""Requantization inside compiled loops: the paths of the reference's ``Requantizer``, per element.

    steps = ScaleConstants.of(requantizer)       # once
    ...
    for i in range(n):                           # compiled; one loop per mode that is vectorized
        out[i] = clamp(scale_halves_ties(acc[i], multiplier, shift, half), low, high)

Which mode is exact was proved by the requantizer, from the range of its input. :func:`scale` takes
the mode as an argument, for loops that are not worth a copy per mode.

numba widens int32 arithmetic to int64; the ``np.int32`` around each step says that it cannot
overflow, and keeps eight lanes to an AVX2 register.
"""
from dataclasses import dataclass

import numpy as np
from numba import njit

from mmdet_bpu.kernels.reference.requantizer import Requantizer

INT32_TIES, INT32, LEFT, HALVES_TIES, HALVES, INT64 = range(6)
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
        if requantizer.path == 'int64':
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
    return min(max(value, low), high)


@njit(nogil=True)
def _round_ties(value: int, shift: int, half: int) -> int:
    odd = np.int32(np.int32(value >> shift) & np.int32(1))
    return np.int32(np.int32(np.int32(value + odd) + half) >> shift)


@njit(nogil=True)
def scale_int32_ties(acc: int, multiplier: int, shift: int, half: int) -> int:
    """``rhe(acc * multiplier / 2**shift)``, half = 2**(shift - 1) - 1."""
    return _round_ties(np.int32(acc * multiplier), shift, half)


@njit(nogil=True)
def scale_int32(acc: int, multiplier: int, shift: int, half: int) -> int:
    """Where no tie can occur: half = 2**(shift - 1)."""
    return np.int32(np.int32(np.int32(acc * multiplier) + half) >> shift)


@njit(nogil=True)
def scale_left(acc: int, multiplier: int, shift: int) -> int:
    """``acc * multiplier * 2**shift``."""
    return np.int32(np.int32(acc * multiplier) << shift)


@njit(nogil=True)
def scale_halves_ties(acc: int, multiplier: int, shift: int, half: int) -> int:
    """``rhe(acc * multiplier / 2**(shift + 16))``; the lowest bit of the high word is sticky."""
    low = np.int32(np.int32(acc & np.int32(0xffff)) * multiplier)
    high = np.int32(np.int32(np.int32(acc >> np.int32(16)) * multiplier) +
                    np.int32(low >> np.int32(16)))
    lost = np.int32(np.int32(low & np.int32(0xffff)) + np.int32(0xffff))
    return _round_ties(np.int32(high | np.int32(lost >> np.int32(16))), shift, half)


@njit(nogil=True)
def scale_halves(acc: int, multiplier: int, shift: int, half: int) -> int:
    """Where no tie can occur."""
    low = np.int32(np.int32(acc & np.int32(0xffff)) * multiplier)
    high = np.int32(np.int32(np.int32(acc >> np.int32(16)) * multiplier) +
                    np.int32(low >> np.int32(16)))
    return np.int32(np.int32(high + half) >> shift)


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
    else:
        value = scale_int64(acc, multiplier, shift, low, high)
    return np.int32(clamp(value, low, high))
