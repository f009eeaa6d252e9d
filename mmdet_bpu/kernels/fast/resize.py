"""resize: two rows of pixels at a time, with the pixels and weights that the reference plans."""
from typing import Optional

import numpy as np
from numba import types

from mmdet_bpu.kernels.compiled_loops import machine_code, spread
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.sampling import SAMPLE_WORK, store_samples
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.kernels.reference.resize import AxisPixels
from mmdet_bpu.program.numerics import Operand

I64, AXIS = types.int64, types.int64[:, ::1]


@machine_code(types.void(*[I64] * 7, AXIS, AXIS, I64))
def resize_rows(first, end, values, out, height, width, channels, rows, columns, bits):
    """Rows first to end - 1 of the result, of all images; values and out are addresses.

    Args:
        rows, columns: int64 (3, results): lower pixel, upper pixel, weight of the upper one.
    """
    one, count = np.int64(1) << bits, columns.shape[1]
    for row in range(first, end):
        image = values + row // rows.shape[1] * height * width * channels
        y = row % rows.shape[1]
        upper, lower = (image + rows[0, y] * width * channels,
                        image + rows[1, y] * width * channels)
        for x in range(count):
            left, right = columns[0, x] * channels, columns[1, x] * channels
            store_samples(out + (row * count + x) * channels, channels, upper + left,
                          upper + right, lower + left, lower + right, one - columns[2, x],
                          columns[2, x], one - rows[2, y], rows[2, y], bits)


@FAST.into('bpu.resize')
def resize(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.resize, bilinear: (N, H, W, C) -> (N, OH, OW, C). Nearest is a copy: left alone."""
    plan = REFERENCE.kernels['bpu.resize'].planner(operands, attrs)
    if not plan.bits:
        return None
    batch, height, width, channels = operands[0].shape
    rows, columns = (_table(axis) for axis in plan.axes)

    def run(inputs: Tensors, outputs: Tensors) -> None:
        values, out = inputs[0].data_ptr(), outputs[0].data_ptr()
        spread(lambda first, end: resize_rows(first, end, values, out, height, width, channels,
                                              rows, columns, plan.bits),
               batch * rows.shape[1], columns.shape[1] * channels * SAMPLE_WORK)

    return run


def _table(axis: AxisPixels) -> np.ndarray:
    return np.stack([part.cpu().numpy().astype(np.int64)
                     for part in (axis.lower, axis.upper, axis.weight)])
