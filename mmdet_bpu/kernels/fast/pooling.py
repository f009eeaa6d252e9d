"""max_pool and avg_pool: a window's pixels go through registers, 16 channels at a time.

Values of fewer than 16 channels, si32 ones, and sums whose rescaling leaves int32 are left to the
reference.
"""
import math
from typing import Callable, Optional

import numpy as np
from numba import types
from numba.extending import register_jitable

from mmdet_bpu.kernels.compiled_loops import machine_code, spread
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.bilinear import rounded_lanes
from mmdet_bpu.kernels.fast.lanes import (LANES, larger, load_int8, load_int16, saturated_wide,
                                          splat, splat_wide, store_int8, store_int16, widen)
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.dtypes import ELEMENT_BYTES
from mmdet_bpu.program.numerics import Operand

I64 = types.int64
# Along an axis: pixels, results, taps, stride, padding before, dilation.
AXIS = types.UniTuple(types.int64, 6)


@register_jitable
def inside(axis, result):
    """First tap of a result's window that lies in the image, and the one after the last.

    Returns:
        tuple: Pixel of tap 0, first tap, end.
    """
    size, _, taps, stride, before, dilation = axis
    pixel = result * stride - before
    first = max(np.int64(0), (dilation - 1 - pixel) // dilation)
    return pixel, first, min(taps, (size - 1 - pixel) // dilation + 1)


@machine_code(types.void(*[I64] * 4, AXIS, AXIS, I64, I64))
def max_rows(first, end, values, out, rows, columns, channels, nbytes):
    """Rows first to end - 1 of the result, of all images; values and out are addresses.

    Args:
        nbytes: Of an element: 1 or 2.
    """
    pitch = channels * nbytes
    for row in range(first, end):
        image = values + row // rows[1] * rows[0] * columns[0] * pitch
        y, first_y, end_y = inside(rows, row % rows[1])
        for result in range(columns[1]):
            x, first_x, end_x = inside(columns, result)
            for begin in range(0, channels, LANES):
                at = min(begin, channels - LANES) * nbytes  # the last may be computed twice
                largest = splat(-32768)
                for i in range(first_y, end_y):
                    line = image + (y + i * rows[5]) * columns[0] * pitch + at
                    for j in range(first_x, end_x):
                        place = line + (x + j * columns[5]) * pitch
                        pixel = load_int8(place) if nbytes == 1 else load_int16(place)
                        largest = larger(largest, pixel)
                place = out + (row * columns[1] + result) * pitch + at
                if nbytes == 1:
                    store_int8(place, largest)
                else:
                    store_int16(place, largest)


@machine_code(types.void(*[I64] * 4, AXIS, AXIS, *[I64] * 3))
def mean_rows(first, end, values, out, rows, columns, channels, multiplier, shift):
    """As :func:`max_rows`, for sums over windows of int8, rescaled to int8.

    Args:
        multiplier, shift: Of the sum; shift in 1..30.
    """
    for row in range(first, end):
        image = values + row // rows[1] * rows[0] * columns[0] * channels
        y, x = row % rows[1] * rows[3], 0
        for result in range(columns[1]):
            for begin in range(0, channels, LANES):
                at = min(begin, channels - LANES)
                total = splat_wide(0)
                for i in range(rows[2]):
                    line = image + ((y + i) * columns[0] + x) * channels + at
                    for j in range(columns[2]):
                        total = total + widen(load_int8(line + j * channels))
                scaled = rounded_lanes(total * splat_wide(multiplier), shift)
                store_int8(out + (row * columns[1] + result) * channels + at,
                           saturated_wide(scaled))
            x += columns[3]


@FAST.into('bpu.max_pool')
def max_pool(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.max_pool: (N, H, W, C) -> (N, OH, OW, C); padding never wins."""
    shape, results = operands[0].shape, attrs['out_shapes'][0]
    nbytes = ELEMENT_BYTES[operands[0].dtype]
    axes = [_axis(shape, results, attrs, axis, attrs['pad'][axis], attrs['dilation'][axis])
            for axis in (0, 1)]
    behind = attrs['pad'][2:]
    if nbytes > 2 or shape[3] < LANES or not all(map(_holds_pixels, axes, behind)):
        return None  # the reference says which padding is too wide
    return _run(max_rows, shape, axes, nbytes)


def _axis(shape: tuple[int, ...], results: tuple[int, ...], attrs: dict, axis: int, before: int,
          dilation: int) -> tuple[int, ...]:
    numbers = (shape[1 + axis], results[1 + axis], attrs['kernel'][axis], attrs['stride'][axis],
               before, dilation)
    return tuple(map(int, numbers))


def _holds_pixels(axis: tuple[int, ...], behind: int) -> bool:
    """Whether each window has a pixel of the image along an axis, and padding is narrower."""
    size, results, taps, stride, before, dilation = axis
    pixels = np.arange(results)[:, None] * stride - before + np.arange(taps) * dilation
    return (max(before, behind) < dilation * (taps - 1) + 1
            and bool(((pixels >= 0) & (pixels < size)).any(1).all()))


@FAST.into('bpu.avg_pool')
def avg_pool(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.avg_pool: (N, H, W, C) -> (N, OH, OW, C); whole windows only."""
    plan = REFERENCE.kernels['bpu.avg_pool'].planner(operands, attrs)
    shape = operands[0].shape
    if ((operands[0].dtype, *attrs['out_dtypes']) != ('si8', 'si8') or shape[3] < LANES
            or plan.path != 'int32' or len(plan.shift) > 1 or plan.shift[0] < 1):
        return None
    axes = [_axis(shape, attrs['out_shapes'][0], attrs, axis, 0, 1) for axis in (0, 1)]
    return _run(mean_rows, shape, axes, int(plan.multiplier[0]), int(plan.shift[0]))


def _run(loop: Callable, shape: tuple[int, ...], axes: list[tuple[int, ...]], *more: int) -> Into:
    """A loop over the rows of the result."""
    (_, rows, height, *_), (_, columns, width, *_) = axes

    def run(inputs: Tensors, outputs: Tensors) -> None:
        values, out = inputs[0].data_ptr(), outputs[0].data_ptr()
        spread(lambda first, end: loop(first, end, values, out, *axes, shape[3], *more),
               shape[0] * rows, columns * height * width * math.ceil(shape[3] / LANES))

    return run
