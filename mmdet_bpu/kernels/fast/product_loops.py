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
from mmdet_bpu.kernels.fast.memory import int8_at, int16_at, int32_at, uint8_at
from mmdet_bpu.kernels.fast.product_finish import COLUMNS, GROUP, PANELS, finish, include_residual
from mmdet_bpu.kernels.fast.tiles import UNITS, make_tile
from mmdet_bpu.kernels.fast.unit_choice import UNIT, UNIT_INT8

DEPTH_INT8 = UNITS[UNIT_INT8].depth
assert UNITS[UNIT_INT8].columns == COLUMNS
# Bytes of gathered rows that leave room for a panel in a core's second cache.
BLOCK_BYTES = 128 << 10


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


def _row_gatherer(source_at, row_at, offset: int, size: int, row_size: int):
    """A loop that gathers rows, adding ``offset`` to each value; what lies outside is 0."""

    @njit
    def copy(source, target, count):
        values, row = source_at(source, count), row_at(target, count)
        for i in range(count):
            row[i] = values[i] + offset

    @njit
    def clear(target, count):
        row = row_at(target, count)
        for i in range(count):
            row[i] = offset

    @njit
    def gather(source, rows, row_bytes, first, count, window, channel):
        channels, group_channels = window.channels, window.group_channels
        span = window.kernel_width * group_channels
        for row in range(count):
            place, target = first + row, rows + row * row_bytes
            if window.dense:
                copy(source + (place * channels + channel) * size, target, group_channels)
                continue
            left = place % window.out_width * window.stride_x - window.left
            place //= window.out_width
            top = place % window.out_height * window.stride_y - window.top
            image = place // window.out_height * window.height
            inside = (window.dilation_x == 1 and group_channels == channels
                      and left >= 0 and left + window.kernel_width <= window.width)
            for tap_y in range(window.kernel_height):
                y = top + tap_y * window.dilation_y
                line = (image + y) * window.width
                if y < 0 or y >= window.height:
                    clear(target, span)
                    target += span * row_size
                elif inside:
                    copy(source + (line + left) * channels * size, target, span)
                    target += span * row_size
                else:
                    for tap_x in range(window.kernel_width):
                        x = left + tap_x * window.dilation_x
                        if x < 0 or x >= window.width:
                            clear(target, group_channels)
                        else:
                            copy(source + ((line + x) * channels + channel) * size, target,
                                 group_channels)
                        target += group_channels * row_size

    return gather


gather8 = _row_gatherer(int8_at, int16_at, 0, 1, 2)
gather8_unsigned = _row_gatherer(int8_at, uint8_at, 128, 1, 1)
gather16 = _row_gatherer(int16_at, int16_at, 0, 2, 2)


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


INT, SCALES, RANGE = types.intp, types.int32[:, :, ::1], types.int32[::1]
PRODUCT = types.void(
    INT, INT, INT, types.boolean, INT, INT, types.NamedUniTuple(INT, len(Window._fields), Window),
    types.int32[:, :, :, ::1], INT, INT, types.int32[:, ::1], SCALES, RANGE, INT, INT, SCALES,
    RANGE, INT, INT)


@compiled(PRODUCT)
def product(start, stop, rows, by_columns, source, source_bytes, window, panels, value_depth,
            columns, bias, scales, result_range, residual, residual_bytes, residual_scales,
            residual_range, out, out_bytes):
    """Rows ``start`` to ``stop``, or of all rows the column groups ``start`` to ``stop``.

    Args:
        rows: Rows of the result (pixels of all images, tokens).
        by_columns: Whether start and stop count column groups of GROUP.
        source, source_bytes: Address of the input; bytes of an element.
        window (Window): Where a row's values lie.
        panels: (groups, panels, words, COLUMNS), the weight as :func:`pack` gives it.
        value_depth: Values per word: 2 of int16, or 4 of int8, of which ``bias`` has taken off 128.
        columns: Output channels of a group.
        bias: (groups, column groups * GROUP), what the accumulators begin with.
        scales: (groups * column groups, 3, GROUP); result_range: mode, low, high.
        residual, residual_bytes, residual_scales, residual_range: The same of the residual; 0
            bytes without one.
        out, out_bytes: Address of the result (rows, groups * columns); bytes of an element.
    """
    groups, words, all_columns = panels.shape[0], panels.shape[2], panels.shape[0] * columns
    parts = scales.shape[0] // groups
    unsigned = value_depth == 4
    in_place = window.dense and source_bytes == 2 and 2 * words == window.channels
    first_row, last_row = (0, rows) if by_columns else (start, stop)
    first_part, last_part = (start, stop) if by_columns else (0, parts)
    block = max(12, BLOCK_BYTES // (4 * words) // 12 * 12)
    block = min(block, last_row - first_row)
    gathered = np.empty((0 if in_place else block, words), np.int32)
    sums = np.empty((block, GROUP), np.int32)
    sums_at, a = sums.ctypes.data, gathered.ctypes.data
    for group in range(groups):
        channel = group * window.group_channels
        for first in range(first_row, last_row, block):
            count = min(block, last_row - first)
            if unsigned:
                gather8_unsigned(source, a, 4 * words, first, count, window, channel)
            elif in_place:
                a = source + 2 * first * window.channels
            elif source_bytes == 1:
                gather8(source, a, 4 * words, first, count, window, channel)
            else:
                gather16(source, a, 4 * words, first, count, window, channel)
            for part in range(first_part, last_part):
                width = min(GROUP, columns - part * GROUP)
                begin = int32_at(bias.ctypes.data + 4 * (group * parts + part) * GROUP, GROUP)
                for row in range(count):
                    line = int32_at(sums_at + 4 * row * GROUP, GROUP)
                    for i in range(GROUP):
                        line[i] = begin[i]
                for at in range(0, width, COLUMNS):
                    panel = panels[group, part * PANELS + at // COLUMNS].ctypes.data
                    if unsigned:
                        multiply_int8(a, words, panel, words, sums_at + 4 * at, GROUP, count)
                    else:
                        multiply(a, words, panel, words, sums_at + 4 * at, GROUP, count)
                at = 12 * (group * parts + part) * GROUP
                place = first * all_columns + group * columns + part * GROUP
                if residual_bytes:
                    include_residual(sums_at, count, width, residual_scales.ctypes.data + at,
                                     residual_range, residual + place * residual_bytes,
                                     residual_bytes, all_columns)
                finish(sums_at, count, width, scales.ctypes.data + at, result_range,
                       out + place * out_bytes, out_bytes, all_columns)


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
