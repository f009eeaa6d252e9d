"""grid_sample alone: one point after another, all channels of it at once."""
import math
from typing import Optional

from numba import types
from numba.extending import register_jitable

from mmdet_bpu.kernels.compiled_loops import machine_code, spread
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.bilinear import (axis_corners, axis_numbers, axis_position,
                                             sample_lanes, sample_one)
from mmdet_bpu.kernels.fast.lanes import LANES, element_int16, store_element_int8, store_int8
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.numerics import Operand

# Elementary operations of a sample of one channel.
SAMPLE_WORK = 2


@register_jitable
def store_samples(out, channels, a, b, c, d, wa, wb, wc, wd, bits):
    """Samples of ``channels`` channels to an address; see :func:`sample_lanes`."""
    if channels >= LANES:
        for begin in range(0, channels, LANES):
            at = min(begin, channels - LANES)  # the last ones may be computed twice
            store_int8(out + at, sample_lanes(a + at, b + at, c + at, d + at, wa, wb, wc, wd,
                                              bits))
    else:
        for at in range(channels):
            store_element_int8(out + at, sample_one(a + at, b + at, c + at, d + at, wa, wb, wc,
                                                    wd, bits))


I64, NUMBERS = types.int64, types.UniTuple(types.int64, 6)


@machine_code(types.void(*[I64] * 7, NUMBERS, NUMBERS, I64))
def sample_points(first, end, values, grid, out, channels, per_image, x_axis, y_axis, bits):
    """Points first to end - 1; values, grid and out are addresses.

    Args:
        per_image: Points of an image.
        x_axis, y_axis: See :func:`axis_numbers`.
    """
    width, height = x_axis[5], y_axis[5]
    for point in range(first, end):
        x = axis_position(element_int16(grid + 4 * point), x_axis[0], x_axis[1], x_axis[2],
                          x_axis[3], x_axis[4])
        y = axis_position(element_int16(grid + 4 * point + 2), y_axis[0], y_axis[1], y_axis[2],
                          y_axis[3], y_axis[4])
        x0, x1, wx0, wx1 = axis_corners(x, width, bits)
        y0, y1, wy0, wy1 = axis_corners(y, height, bits)
        image = values + point // per_image * height * width * channels
        upper, lower = image + y0 * width * channels, image + y1 * width * channels
        left, right = x0 * channels, x1 * channels
        store_samples(out + point * channels, channels, upper + left, upper + right,
                      lower + left, lower + right, wx0, wx1, wy0, wy1, bits)


@FAST.into('bpu.grid_sample')
def grid_sample(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.grid_sample: values (N, H, W, C), grid (N, OH, OW, 2) -> (N, OH, OW, C)."""
    plan = REFERENCE.kernels['bpu.grid_sample'].planner(operands, attrs)
    _, height, width, channels = operands[0].shape
    axes = axis_numbers(plan, 0, width), axis_numbers(plan, 1, height)
    points, per_image = math.prod(operands[1].shape[:3]), math.prod(operands[1].shape[1:3])

    def run(inputs: Tensors, outputs: Tensors) -> None:
        values, grid, out = (tensor.data_ptr() for tensor in (*inputs, *outputs))
        spread(lambda first, end: sample_points(first, end, values, grid, out, channels,
                                                per_image, *axes, plan.bits),
               points, channels * SAMPLE_WORK)

    return run
