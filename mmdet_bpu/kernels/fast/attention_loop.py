"""The compiled loop of deformable attention: sample, weigh, sum over levels and points, round.

Per query and head, what lies between stays in registers and in one line of sums.
"""
import numpy as np
from numba import types
from numba.extending import register_jitable

from mmdet_bpu.kernels.compiled_loops import machine_code
from mmdet_bpu.kernels.fast.bilinear import (axis_corners, axis_position, rounded, rounded_lanes,
                                             sample_lanes, sample_one)
from mmdet_bpu.kernels.fast.lanes import (LANES, element_int8, element_int16, high_product,
                                          load_int16, saturated, saturated_wide, splat,
                                          splat_wide, store_element_int8, store_element_int16,
                                          store_int8, store_int16, widen)

# Columns of the table of levels. Addresses and strides are in bytes; a coordinate is the first of x
# and y, COORDINATE_AXIS apart. X and Y are each followed by what AXIS names.
(VALUE, VALUE_HEAD, VALUE_Y, VALUE_X, GRID, GRID_HEAD, GRID_QUERY, GRID_POINT, GRID_AXIS, WEIGHT,
 WEIGHT_HEAD, WEIGHT_QUERY, WEIGHT_POINT, POINTS, BITS, X) = range(16)
AXIS = ('multiplier', 'shift', 'offset', 'low', 'high', 'size')
Y = X + len(AXIS)
COLUMNS = Y + len(AXIS)
# Points whose weighted samples, int8, fit the int16 sums.
LARGEST_POINTS = 255


@register_jitable
def corners(levels, index, axis, coordinate):
    """:func:`axis_corners` of a level's coordinate."""
    position = axis_position(coordinate, levels[index, axis], levels[index, axis + 1],
                             levels[index, axis + 2], levels[index, axis + 3],
                             levels[index, axis + 4])
    return axis_corners(position, levels[index, axis + 5], levels[index, BITS])


@register_jitable
def add_weighted(sums, channels, a, b, c, d, wa, wb, wc, wd, bits, weight, multiplier, shift,
                 high_words):
    """Sample ``channels`` channels, weigh them, round to int8 and add to the sums, int16."""
    whole = channels // LANES * LANES
    for channel in range(0, whole, LANES):
        sample = sample_lanes(a + channel, b + channel, c + channel, d + channel, wa, wb, wc, wd,
                              bits)
        product = sample * splat(weight)
        if high_words:
            half = splat(np.int64(1) << shift - 17)
            scaled = saturated((high_product(product, splat(multiplier)) + half)
                               >> splat(shift - 16))
        else:
            scaled = saturated_wide(rounded_lanes(widen(product) * splat_wide(multiplier), shift))
        place = sums + 2 * channel
        store_int16(place, load_int16(place) + scaled)
    for channel in range(whole, channels):
        sample = sample_one(a + channel, b + channel, c + channel, d + channel, wa, wb, wc, wd,
                            bits)
        scaled = rounded(sample * weight * multiplier, shift)
        place = sums + 2 * channel
        store_element_int16(place, element_int16(place) + min(max(scaled, -128), 127))


@register_jitable
def store_rounded(out, sums, channels, multiplier, shift):
    """``channels`` sums, requantized to int8."""
    whole = channels // LANES * LANES
    for channel in range(0, whole, LANES):
        total = widen(load_int16(sums + 2 * channel))
        store_int8(out + channel,
                   saturated_wide(rounded_lanes(total * splat_wide(multiplier), shift)))
    for channel in range(whole, channels):
        value = rounded(element_int16(sums + 2 * channel) * multiplier, shift)
        store_element_int8(out + channel, min(max(value, -128), 127))


I64 = types.int64


@machine_code(types.void(*[I64] * 7, types.int64[:, ::1], *[I64] * 5))
def attend(first, end, heads, channels, out, out_head, out_query, levels, multiplier, shift,
           high_words, sum_multiplier, sum_shift):
    """Deformable attention of queries first to end - 1.

    Args:
        out: Address of the result; out_head and out_query are its strides.
        levels: int64 (levels, COLUMNS).
        multiplier, shift: Of a weighted sample; shift in 1..30.
        high_words: Whether no product of a sample lies between two results and shift is 17 or more.
        sum_multiplier, sum_shift: Of the sum; shift in 1..30.
    """
    line = np.empty(channels, np.int16)
    sums = line.ctypes.data
    for query in range(first, end):
        for head in range(heads):
            line[:] = 0
            for index in range(len(levels)):
                bits, axis = levels[index, BITS], levels[index, GRID_AXIS]
                value = levels[index, VALUE] + head * levels[index, VALUE_HEAD]
                row, column = levels[index, VALUE_Y], levels[index, VALUE_X]
                place = (levels[index, GRID] + head * levels[index, GRID_HEAD]
                         + query * levels[index, GRID_QUERY])
                step = levels[index, GRID_POINT]
                weights = (levels[index, WEIGHT] + head * levels[index, WEIGHT_HEAD]
                           + query * levels[index, WEIGHT_QUERY])
                weight_step = levels[index, WEIGHT_POINT]
                for point in range(levels[index, POINTS]):
                    weight = element_int8(weights + point * weight_step)
                    x = element_int16(place + point * step)
                    y = element_int16(place + point * step + axis)
                    x0, x1, wx0, wx1 = corners(levels, index, X, x)
                    y0, y1, wy0, wy1 = corners(levels, index, Y, y)
                    if weight == 0 or wx0 + wx1 == 0 or wy0 + wy1 == 0:
                        continue  # adds 0
                    upper, lower = value + y0 * row, value + y1 * row
                    left, right = x0 * column, x1 * column
                    add_weighted(sums, channels, upper + left, upper + right, lower + left,
                                 lower + right, wx0, wx1, wy0, wy1, bits, weight, multiplier,
                                 shift, high_words)
            store_rounded(out + head * out_head + query * out_query, sums, channels,
                          sum_multiplier, sum_shift)
