"""Requantization in compiled loops: the paths of the reference's Requantizer, one element each.

Every function is inlined into the loop that calls it, and vectorizes there. All but
:func:`scale64` stay within 32 bits.
"""
import numpy as np
from numba import njit

from mmdet_bpu.kernels.fast.int32 import (add, bits_and, bits_or, largest, least, mul, shift_left,
                                            shift_right)
from mmdet_bpu.kernels.reference.requantizer import Requantizer

RIGHT, RIGHT_TIES, LEFT, HALVES, HALVES_TIES, INT64 = range(6)
ONE, HALF_WORD, LOW_WORD = np.int32(1), np.int32(16), np.int32(0xffff)


class Scaling:
    """A Requantizer's constants for compiled loops.

    Args:
        requantizer (Requantizer): What proved which path is exact.
        channels (int): Length of the arrays. Defaults to 1, for one scale per tensor.

    Attributes:
        path (int): Which of the functions of this module.
        multiplier, shift, half (np.ndarray): int32; what that function takes.
        low, high (int): Range of the result.
    """

    def __init__(self, requantizer: Requantizer, channels: int = 1) -> None:
        multiplier = np.broadcast_to(requantizer.multiplier, channels)
        shift = np.broadcast_to(requantizer.shift, channels)
        if requantizer.path == 'int64':
            self.path = INT64
        elif requantizer.path == 'halves':
            self.path, shift = HALVES_TIES if requantizer.ties else HALVES, shift - 16
        elif shift[0] <= 0:
            self.path, shift = LEFT, -shift
        else:
            self.path = RIGHT_TIES if requantizer.ties else RIGHT
        half = (1 << np.clip(shift, 1, 31) - 1) - int(requantizer.ties)
        self.multiplier, self.shift, self.half = (
            np.ascontiguousarray(array, np.int32) for array in (multiplier, shift, half))
        self.low, self.high = np.int32(requantizer.low), np.int32(requantizer.high)


@njit
def right(value, multiplier, shift, half):
    """No result lies between two integers: add a half, shift."""
    return shift_right(add(mul(value, multiplier), half), shift)


@njit
def right_ties(value, multiplier, shift, half):
    """Of two equally near integers the even one: ``half`` is 1 less than a half."""
    product = mul(value, multiplier)
    odd = bits_and(shift_right(product, shift), ONE)
    return shift_right(add(add(product, odd), half), shift)


@njit
def left(value, multiplier, shift, half):
    """A shift to the left, which needs no rounding."""
    return shift_left(mul(value, multiplier), shift)


@njit
def halves(value, multiplier, shift, half):
    """From the high word of the product: 16 bits less to shift."""
    low = mul(bits_and(value, LOW_WORD), multiplier)
    high = add(mul(shift_right(value, HALF_WORD), multiplier), shift_right(low, HALF_WORD))
    return shift_right(add(high, half), shift)


@njit
def halves_ties(value, multiplier, shift, half):
    """From the high word of the product, its lowest bit set where the low word is not 0."""
    low = mul(bits_and(value, LOW_WORD), multiplier)
    high = add(mul(shift_right(value, HALF_WORD), multiplier), shift_right(low, HALF_WORD))
    lost = shift_right(add(bits_and(low, LOW_WORD), LOW_WORD), HALF_WORD)
    high = bits_or(high, lost)
    odd = bits_and(shift_right(high, shift), ONE)
    return shift_right(add(add(high, odd), half), shift)


@njit
def scale64(value, multiplier, shift, low, high):
    """Any pair, in 64 bits; the result lies within low - 1 to high + 1.

    What a left shift of more than 31 would give is clamped before: it saturates alike.
    """
    product = np.int64(value) * np.int64(multiplier)
    if shift > 0:
        bits = np.int64(min(shift, 62))
        odd = (product >> bits) & 1
        product = (product + odd + ((np.int64(1) << (bits - 1)) - 1)) >> bits
    product = min(max(product, np.int64(low) - 1), np.int64(high) + 1)
    if shift < 0:
        product <<= np.int64(min(-shift, 31))
        product = min(max(product, np.int64(low)), np.int64(high))
    return np.int32(min(max(product, np.int64(low)), np.int64(high)))


@njit
def scale_row(row, multiplier, shift, half, path, low, high):
    """Scale, round and clamp an int32 row in place; one constant per element."""
    count = len(row)
    if path == RIGHT:
        for i in range(count):
            row[i] = right(row[i], multiplier[i], shift[i], half[i])
    elif path == RIGHT_TIES:
        for i in range(count):
            row[i] = right_ties(row[i], multiplier[i], shift[i], half[i])
    elif path == LEFT:
        for i in range(count):
            row[i] = left(row[i], multiplier[i], shift[i], half[i])
    elif path == HALVES:
        for i in range(count):
            row[i] = halves(row[i], multiplier[i], shift[i], half[i])
    elif path == HALVES_TIES:
        for i in range(count):
            row[i] = halves_ties(row[i], multiplier[i], shift[i], half[i])
    else:
        for i in range(count):
            row[i] = scale64(row[i], multiplier[i], shift[i], low, high)
    for i in range(count):
        row[i] = largest(least(row[i], high), low)
