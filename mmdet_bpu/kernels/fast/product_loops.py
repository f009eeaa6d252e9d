"""Compiled loops of integer products: gather rows, multiply them tile by tile, finish them.

A product is rows of A (pixels, or tokens) times the columns of a packed weight (output channels):
a convolution's row holds the pixels under the window, so that the sum over its length is the
accumulator. Work goes block by block of rows, and group by group of panels within a block, so that
both the gathered rows and the accumulators stay in a core's cache until they are finished.
"""
from typing import NamedTuple

import numpy as np
from numba import njit, types

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.kernels.fast.int32 import add
from mmdet_bpu.kernels.fast.requantize import scale_row
from mmdet_bpu.kernels.fast.tiles import UNITS, make_tile
from mmdet_bpu.kernels.fast.unit_choice import UNIT, UNIT_INT8

COLUMNS, DEPTH_INT8 = UNITS[UNIT].columns, UNITS[UNIT_INT8].depth
assert UNITS[UNIT_INT8].columns == COLUMNS
# Panels whose accumulators are finished together: at least a cache line of int8.
PANELS = max(1, 64 // COLUMNS)
GROUP = PANELS * COLUMNS
# Bytes of gathered rows that leave room for a panel in a core's second cache.
BLOCK_BYTES = 192 << 10


class Window(NamedTuple):
    """Where a row's values lie; for a linear layer, a window of one pixel. All are int.

    Attributes: height, width and channels of the image; rows and columns of the result; height,
    width, strides, padding before and dilations of the window; channels of a group; whether rows
    lie one behind the other, so that none has to be looked for.
    """
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    dilation_y: int
    dilation_x: int
    group_channels: int
    dense: int


def _row_gatherer(offset: int):
    """A loop that gathers rows, adding ``offset`` to each value; what lies outside is 0."""

    @njit
    def gather(source, rows, first, count, window, channel):
        length = window.kernel_height * window.kernel_width * window.group_channels
        span = window.kernel_width * window.group_channels
        for row in range(count):
            place, target = first + row, rows[row]
            if window.dense:
                begin = place * window.channels + channel
                for i in range(length):
                    target[i] = source[begin + i] + offset
                continue
            left = place % window.out_width * window.stride_x - window.left
            place //= window.out_width
            top = place % window.out_height * window.stride_y - window.top
            image = place // window.out_height * window.height
            inside = (window.dilation_x == 1 and window.group_channels == window.channels
                      and left >= 0 and left + window.kernel_width <= window.width)
            at = 0
            for tap_y in range(window.kernel_height):
                y = top + tap_y * window.dilation_y
                line = (image + y) * window.width
                if y < 0 or y >= window.height:
                    for i in range(span):
                        target[at + i] = offset
                    at += span
                elif inside:
                    begin = (line + left) * window.channels
                    for i in range(span):
                        target[at + i] = source[begin + i] + offset
                    at += span
                else:
                    for tap_x in range(window.kernel_width):
                        x = left + tap_x * window.dilation_x
                        begin = (line + x) * window.channels + channel
                        if x < 0 or x >= window.width:
                            for i in range(window.group_channels):
                                target[at + i] = offset
                        else:
                            for i in range(window.group_channels):
                                target[at + i] = source[begin + i] + offset
                        at += window.group_channels

    return gather


gather, gather_unsigned = _row_gatherer(0), _row_gatherer(128)


def _panel_product(unit):
    """A loop that multiplies all rows of a block with one panel, in tiles of falling height."""
    whole, step = make_tile(unit, unit.rows), unit.rows
    eight, four, two, one = (make_tile(unit, rows) for rows in (8, 4, 2, 1))

    @njit
    def multiply(a, row_words, panel, words, c, row_columns, count):
        a_step, c_step = 4 * row_words, 4 * row_columns
        row = 0
        while count - row >= step:
            whole(a + row * a_step, row_words, panel, words, c + row * c_step, row_columns)
            row += step
        if step > 8 and count - row >= 8:
            eight(a + row * a_step, row_words, panel, words, c + row * c_step, row_columns)
            row += 8
        if count - row >= 4:
            four(a + row * a_step, row_words, panel, words, c + row * c_step, row_columns)
            row += 4
        if count - row >= 2:
            two(a + row * a_step, row_words, panel, words, c + row * c_step, row_columns)
            row += 2
        if count - row >= 1:
            one(a + row * a_step, row_words, panel, words, c + row * c_step, row_columns)

    return multiply


multiply, multiply_int8 = _panel_product(UNITS[UNIT]), _panel_product(UNITS[UNIT_INT8])


@njit
def finish(sums, place, column, residual8, residual16, residual_scales, residual_range, scales,
           result_range, out8, out16, out32):
    """Residual, requantization and storing of the accumulators of one row, from a column on."""
    width = len(sums)
    end = column + width
    if len(residual8) or len(residual16):
        extra = np.empty(width, np.int32)
        if len(residual8):
            for i in range(width):
                extra[i] = residual8[place, column + i]
        else:
            for i in range(width):
                extra[i] = residual16[place, column + i]
        scale_row(extra, residual_scales[0, column:end], residual_scales[1, column:end],
                  residual_scales[2, column:end], residual_range[0], residual_range[1],
                  residual_range[2])
        for i in range(width):
            sums[i] = add(sums[i], extra[i])
    scale_row(sums, scales[0, column:end], scales[1, column:end], scales[2, column:end],
              result_range[0], result_range[1], result_range[2])
    if len(out8):
        for i in range(width):
            out8[place, column + i] = sums[i]
    elif len(out16):
        for i in range(width):
            out16[place, column + i] = sums[i]
    else:
        for i in range(width):
            out32[place, column + i] = sums[i]


INT8S, INT16S, INT32S = types.int8[:, ::1], types.int16[:, ::1], types.int32[:, ::1]
PRODUCT = types.void(
    types.intp, types.intp, types.intp, types.boolean, types.int8[::1], types.int16[::1],
    types.NamedUniTuple(types.intp, len(Window._fields), Window), types.int32[:, :, :, ::1],
    types.intp, INT32S, INT32S, types.int32[::1], INT8S, INT16S, INT32S, types.int32[::1], INT8S,
    INT16S, INT32S)


@compiled(PRODUCT)
def product(start, stop, rows, by_columns, source8, source16, window, panels, columns, bias, scales,
            result_range, residual8, residual16, residual_scales, residual_range, out8, out16,
            out32):
    """Rows ``start`` to ``stop``, or of all rows the column groups ``start`` to ``stop``.

    Args:
        rows: Rows of the result (pixels of all images, tokens).
        by_columns: Whether start and stop count column groups of ``GROUP``.
        source8, source16: The input; one of them is empty, as of the other pairs.
        window (Window): Where a row's values lie.
        panels: (groups, panels, words, COLUMNS), the weight as :func:`pack` gives it.
        columns: Output channels of a group.
        bias: (groups, panels * COLUMNS), what the accumulators begin with.
        scales: (3, O) multiplier, shift and half; result_range: path, low, high.
        residual8, residual16: (rows, O); residual_scales, residual_range: as for the result.
        out8, out16, out32: (rows, O).
    """
    words = panels.shape[2]
    unsigned = DEPTH_INT8 == 4 and len(source8) > 0
    in_place = window.dense and len(source16) > 0 and 2 * words == window.channels
    first_row, last_row = (0, rows) if by_columns else (start, stop)
    block = max(12, BLOCK_BYTES // (4 * words) // 12 * 12)
    block = min(block, last_row - first_row)
    wide = np.empty((0 if unsigned or in_place else block, 2 * words), np.int16)
    narrow = np.empty((block if unsigned else 0, 4 * words), np.uint8)
    sums = np.empty((block, GROUP), np.int32)
    for group in range(panels.shape[0]):
        first_column, last_column = 0, columns
        if by_columns:
            first_column, last_column = start * GROUP, min(stop * GROUP, columns)
        for first in range(first_row, last_row, block):
            count = min(block, last_row - first)
            channel = group * window.group_channels
            a, row_words = wide.ctypes.data, words
            if unsigned:
                gather_unsigned(source8, narrow, first, count, window, channel)
                a = narrow.ctypes.data
            elif in_place:
                a = source16.ctypes.data + 2 * first * window.channels
            elif len(source8):
                gather(source8, wide, first, count, window, channel)
            else:
                gather(source16, wide, first, count, window, channel)
            for column in range(first_column, last_column, GROUP):
                width = min(GROUP, columns - column)
                for row in range(count):
                    for i in range(width):
                        sums[row, i] = bias[group, column + i]
                for at in range(0, width, COLUMNS):
                    panel = panels[group, (column + at) // COLUMNS].ctypes.data
                    target = sums.ctypes.data + 4 * at
                    if unsigned:
                        multiply_int8(a, row_words, panel, words, target, GROUP, count)
                    else:
                        multiply(a, row_words, panel, words, target, GROUP, count)
                for row in range(count):
                    finish(sums[row, :width], first + row, group * columns + column, residual8,
                           residual16, residual_scales, residual_range, scales, result_range,
                           out8, out16, out32)


def pack(weight: np.ndarray, groups: int, depth: int) -> np.ndarray:
    """A weight in the order in which tiles read it.

    Args:
        weight (np.ndarray): Integers (O, K), output channels of a group side by side.
        groups (int): Groups.
        depth (int): Values per 32 bits: 2 of int16, or 4 of int8.

    Returns:
        np.ndarray: int32 words (groups, panels, words, COLUMNS), filled up with 0.
    """
    channels, length = weight.shape
    columns = channels // groups
    panels, words = -(-columns // COLUMNS), max(1, -(-length // depth))
    padded = np.zeros((groups, panels * COLUMNS, words * depth),
                      np.int16 if depth == 2 else np.int8)
    padded[:, :columns, :length] = weight.reshape(groups, columns, length)
    parts = padded.reshape(groups, panels, COLUMNS, words, depth).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(parts).view(np.int32)[..., 0]
