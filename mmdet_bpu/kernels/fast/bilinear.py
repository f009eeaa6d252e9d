"""Four pixels and their weights in fixed point, and the samples that follow, 16 channels at a time.

The integers are those of the reference's ``sampling.py``. With up to 8
fraction bits the sum along a row of pixels fits int16: ``128 * 2**8``. Beyond that, all is int32.
"""
import numpy as np
from numba.extending import register_jitable

from mmdet_bpu.kernels.fast.lanes import (element_int8, load_int8, narrow, splat, splat_wide,
                                          widen)
from mmdet_bpu.kernels.reference.requantizer import Requantizer
from mmdet_bpu.kernels.reference.sampling import SamplePlan
from mmdet_bpu.program.sampling_grid import POSITION_LIMIT

# Fraction bits with which a row's sum fits int16.
NARROW_BITS = 8
# Left shifts beyond saturate at POSITION_LIMIT as this one does: 2**14 << 31.
LARGEST_LEFT_SHIFT = 31


def axis_numbers(plan: SamplePlan, axis: int, size: int) -> tuple[int, ...]:
    """What the loops take of an axis: multiplier, shift, offset, least and largest position, size.

    Args:
        plan (SamplePlan): Of the grid_sample.
        axis (int): 0 for x, 1 for y.
        size (int): Image extent in px.
    """
    one = 1 << plan.bits
    low, high = (0, (size - 1) * one) if plan.border else (-one, size * one)
    return (*right_shift_pair(plan.axes[axis]), plan.offsets[axis], low, high, size)


def right_shift_pair(requantizer: Requantizer) -> tuple[int, int]:
    """Multiplier and shift of positions, as a right shift by at least 1.

    ``g * multiplier << n`` is ``g * (multiplier << n + 1)``, halved: exact, without a special case
    in the loops. It fits int64.
    """
    multiplier, shift = int(requantizer.multiplier[0]), int(requantizer.shift[0])
    if shift >= 1:
        return multiplier, shift
    return multiplier << 1 + min(-shift, LARGEST_LEFT_SHIFT), 1


@register_jitable
def rounded(value, shift):
    """``round_half_even(value / 2**shift)``, shift at least 1."""
    return (value + (np.int64(1) << shift - 1) - 1 + (value >> shift & 1)) >> shift


@register_jitable
def axis_position(coordinate, multiplier, shift, offset, low, high):
    """Position of a grid's coordinate in units of 2**-bits px, clamped to [low, high]."""
    scaled = rounded(coordinate * multiplier, shift)
    scaled = min(max(scaled, -POSITION_LIMIT), POSITION_LIMIT) + offset
    return min(max(scaled, low), high)


@register_jitable
def axis_corners(position, size, bits):
    """Lower and upper pixel along one axis, clamped into the image, and their weights.

    The weight of a pixel outside the image is 0.
    """
    lower = position >> bits
    upper_weight = position & (np.int64(1) << bits) - 1
    lower_weight = (np.int64(1) << bits) - upper_weight
    upper = lower + 1
    if lower < 0 or lower >= size:
        lower_weight = np.int64(0)
    if upper >= size:
        upper_weight = np.int64(0)
    return (min(max(lower, 0), size - 1), min(upper, size - 1), lower_weight, upper_weight)


@register_jitable
def weighted_lanes(a, b, c, d, wa, wb, wc, wd, bits):
    """Weighted sums of four pixels, of 16 channels, in int32.

    Args:
        a, b, c, d: Addresses of the upper left, upper right, lower left and lower right pixel.
        wa, wb: Weights of a row's left and right pixel.
        wc, wd: Weights of the upper and the lower row.
        bits: Fraction bits.
    """
    if bits <= NARROW_BITS:
        left, right = splat(wa), splat(wb)
        upper = load_int8(a) * left + load_int8(b) * right
        lower = load_int8(c) * left + load_int8(d) * right
        return widen(upper) * splat_wide(wc) + widen(lower) * splat_wide(wd)
    return (widen(load_int8(a)) * splat_wide(wa * wc) + widen(load_int8(b)) * splat_wide(wb * wc)
            + widen(load_int8(c)) * splat_wide(wa * wd) + widen(load_int8(d)) * splat_wide(wb * wd))


@register_jitable
def sample_lanes(a, b, c, d, wa, wb, wc, wd, bits):
    """The sums of :func:`weighted_lanes`, rounded to the pixels' scale, in int16."""
    return narrow(rounded_lanes(weighted_lanes(a, b, c, d, wa, wb, wc, wd, bits), 2 * bits))


@register_jitable
def rounded_lanes(value, shift):
    """``round_half_even(value / 2**shift)`` of int32, shift 1 to 31; the sum must fit int32."""
    wide = splat_wide(shift)
    odd = (value >> wide) & splat_wide(1)
    return (value + odd + splat_wide((np.int64(1) << shift - 1) - 1)) >> wide


@register_jitable
def weighted_one(a, b, c, d, wa, wb, wc, wd):
    """:func:`weighted_lanes` of a single channel."""
    return ((element_int8(a) * wa + element_int8(b) * wb) * wc
            + (element_int8(c) * wa + element_int8(d) * wb) * wd)


@register_jitable
def sample_one(a, b, c, d, wa, wb, wc, wd, bits):
    """:func:`sample_lanes` of a single channel."""
    return rounded(weighted_one(a, b, c, d, wa, wb, wc, wd), 2 * bits)
