"""The last step of integer products: residual, requantization and storing of accumulators.

Accumulators come as rows of ``GROUP`` int32 in a core's cache, which are results and residuals from
some column on. Loops over a whole number of vectors, with the requantization's mode and the types
decided outside: that is where the time of a small product goes.
"""
import numpy as np
from numba import njit

from mmdet_bpu.kernels.fast.int32 import add
from mmdet_bpu.kernels.fast.memory import int8_at, int16_at, int32_at
from mmdet_bpu.kernels.fast.requantize import (HALVES, HALVES_TIES, INT32, INT32_TIES, SPLIT,
                                                clamp, scale, scale_halves, scale_halves_ties,
                                                scale_int32, scale_int32_ties, scale_split)
from mmdet_bpu.kernels.fast.tiles import UNITS
from mmdet_bpu.kernels.fast.unit_choice import UNIT

COLUMNS = UNITS[UNIT].columns
# Panels whose accumulators are finished together: at least a cache line of int8.
PANELS = max(1, 64 // COLUMNS)
GROUP = PANELS * COLUMNS


def _result_loop(requantize, array_at, size: int):
    """A loop that stores rows of GROUP columns in one mode and type."""

    @njit
    def store(sums, count, scales, low, high, out, row_elements):
        multiplier, shift = int32_at(scales, GROUP), int32_at(scales + 4 * GROUP, GROUP)
        half = int32_at(scales + 8 * GROUP, GROUP)
        for row in range(count):
            values = int32_at(sums + 4 * GROUP * row, GROUP)
            target = array_at(out + size * row_elements * row, GROUP)
            for i in range(GROUP):
                target[i] = clamp(requantize(values[i], multiplier[i], shift[i], half[i]), low,
                                  high)

    return store


def _residual_loop(requantize, array_at, size: int):
    """A loop that adds rows of GROUP rescaled residuals of one mode and type."""

    @njit
    def include(sums, count, scales, residual, row_elements):
        multiplier, shift = int32_at(scales, GROUP), int32_at(scales + 4 * GROUP, GROUP)
        half = int32_at(scales + 8 * GROUP, GROUP)
        for row in range(count):
            values = int32_at(sums + 4 * GROUP * row, GROUP)
            source = array_at(residual + size * row_elements * row, GROUP)
            for i in range(GROUP):
                values[i] = add(values[i], requantize(np.int32(source[i]), multiplier[i], shift[i],
                                                      half[i]))

    return include


def _scaling_loop(requantize):
    """A loop that requantizes rows of GROUP accumulators in place; not all of them count."""

    @njit
    def rescale(sums, count, scales, low, high):
        multiplier, shift = int32_at(scales, GROUP), int32_at(scales + 4 * GROUP, GROUP)
        half = int32_at(scales + 8 * GROUP, GROUP)
        for row in range(count):
            values = int32_at(sums + 4 * GROUP * row, GROUP)
            for i in range(GROUP):
                values[i] = clamp(requantize(values[i], multiplier[i], shift[i], half[i]), low,
                                  high)

    return rescale


halves_to_8 = _result_loop(scale_halves, int8_at, 1)
halves_to_16 = _result_loop(scale_halves, int16_at, 2)
halves_ties_to_8 = _result_loop(scale_halves_ties, int8_at, 1)
halves_ties_to_16 = _result_loop(scale_halves_ties, int16_at, 2)
split_to_16 = _result_loop(scale_split, int16_at, 2)
halves_in_place, halves_ties_in_place, split_in_place = map(
    _scaling_loop, (scale_halves, scale_halves_ties, scale_split))
add_8, add_16 = (_residual_loop(scale_int32, array_at, size)
                 for array_at, size in ((int8_at, 1), (int16_at, 2)))
add_ties_8, add_ties_16 = (_residual_loop(scale_int32_ties, array_at, size)
                           for array_at, size in ((int8_at, 1), (int16_at, 2)))


@njit
def include_residual(sums, count, width, scales, limits, residual, size, row_elements):
    """Add ``rhe(residual * multiplier / 2**shift)``; see :func:`finish`."""
    mode = limits[0]
    if width == GROUP and mode == INT32 and size == 1:
        add_8(sums, count, scales, residual, row_elements)
    elif width == GROUP and mode == INT32 and size == 2:
        add_16(sums, count, scales, residual, row_elements)
    elif width == GROUP and mode == INT32_TIES and size == 1:
        add_ties_8(sums, count, scales, residual, row_elements)
    elif width == GROUP and mode == INT32_TIES and size == 2:
        add_ties_16(sums, count, scales, residual, row_elements)
    else:
        multiplier, shift = int32_at(scales, GROUP), int32_at(scales + 4 * GROUP, GROUP)
        half = int32_at(scales + 8 * GROUP, GROUP)
        for row in range(count):
            values = int32_at(sums + 4 * GROUP * row, GROUP)
            at = residual + size * row_elements * row
            for i in range(width):
                value = (np.int32(int8_at(at, width)[i]) if size == 1
                         else np.int32(int16_at(at, width)[i]))
                values[i] = add(values[i], scale(value, mode, multiplier[i], shift[i], half[i],
                                                 limits[1], limits[2]))


@njit
def finish(sums, count, width, scales, limits, out, size, row_elements):
    """Requantize and store accumulators.

    Args:
        sums: Address of (count, GROUP) int32, of which ``width`` columns are results.
        count, width: Rows; columns.
        scales: Address of (3, GROUP) int32: multiplier, shift, half.
        limits: Mode, low and high.
        out, size, row_elements: Address of the first result; bytes of an element; elements from
            one row to the next.
    """
    mode, low, high = limits[0], limits[1], limits[2]
    if width == GROUP and mode == HALVES and size == 1:
        halves_to_8(sums, count, scales, low, high, out, row_elements)
    elif width == GROUP and mode == HALVES and size == 2:
        halves_to_16(sums, count, scales, low, high, out, row_elements)
    elif width == GROUP and mode == HALVES_TIES and size == 1:
        halves_ties_to_8(sums, count, scales, low, high, out, row_elements)
    elif width == GROUP and mode == HALVES_TIES and size == 2:
        halves_ties_to_16(sums, count, scales, low, high, out, row_elements)
    elif width == GROUP and mode == SPLIT and size == 2:
        split_to_16(sums, count, scales, low, high, out, row_elements)
    else:
        if mode == HALVES:
            halves_in_place(sums, count, scales, low, high)
        elif mode == HALVES_TIES:
            halves_ties_in_place(sums, count, scales, low, high)
        elif mode == SPLIT:
            split_in_place(sums, count, scales, low, high)
        else:
            multiplier, shift = int32_at(scales, GROUP), int32_at(scales + 4 * GROUP, GROUP)
            half = int32_at(scales + 8 * GROUP, GROUP)
            for row in range(count):
                values = int32_at(sums + 4 * GROUP * row, GROUP)
                for i in range(width):
                    values[i] = scale(values[i], mode, multiplier[i], shift[i], half[i], low,
                                      high)
        for row in range(count):
            values = int32_at(sums + 4 * GROUP * row, GROUP)
            at = out + size * row_elements * row
            if size == 1:
                narrow = int8_at(at, width)
                for i in range(width):
                    narrow[i] = values[i]
            elif size == 2:
                wide = int16_at(at, width)
                for i in range(width):
                    wide[i] = values[i]
            else:
                whole = int32_at(at, width)
                for i in range(width):
                    whole[i] = values[i]
