"""bpu.conv2d and bpu.linear on the processor's integer unit."""
import functools
import math
from typing import Optional

import numpy as np

from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.product_depthwise import is_depthwise, plan_depthwise
from mmdet_bpu.kernels.fast.product_loops import DEPTH_INT8, GROUP, Window, pack, product
from mmdet_bpu.kernels.fast.product_operands import (MULTIPLICATIONS, NO_SCALES, by_parts,
                                                       column_scales, place_of)
from mmdet_bpu.kernels.fast.requantize import INT64
from mmdet_bpu.kernels.kernel_set import Into, Tensors
from mmdet_bpu.kernels.reference.epilogue import Epilogue
from mmdet_bpu.program.numerics import Operand


@FAST.into('bpu.linear')
def linear(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """(..., C) x (O, C) + (O) [+ residual (..., O)] -> (..., O)."""
    features = operands[0].shape[-1]
    window = Window(1, 1, features, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, features, 1)
    return plan_product(operands, attrs, window, 1, 'bpu.linear')


@FAST.into('bpu.conv2d')
def conv2d(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """(N, H, W, C) x (O, KH, KW, C / groups) + (O) [+ residual] -> (N, OH, OW, O)."""
    _, height, width, channels = operands[0].shape
    _, out_height, out_width, _ = attrs['out_shapes'][0]
    kernel = operands[1].shape[1:3]
    top, left, bottom, right = attrs['pad']
    groups = attrs['groups']
    dense = (tuple(kernel) == (1, 1) and tuple(attrs['stride']) == (1, 1)
             and not any(attrs['pad']))
    window = Window(height, width, channels, out_height, out_width, *kernel, *attrs['stride'],
                    top, left, *attrs['dilation'], channels // groups, int(dense))
    if is_depthwise(operands, groups):
        return plan_depthwise(operands, attrs, window)
    return plan_product(operands, attrs, window, groups, 'bpu.conv2d')


def plan_product(operands: list[Operand], attrs: dict, window: Window, groups: int,
                 op: str) -> Optional[Into]:
    """A product with a constant weight, ready to run; None for what no integer unit takes.

    Raises:
        BpuError: What the numeric contract excludes; see :class:`Epilogue`.
    """
    if any(operand.constant is None for operand in operands[1:3]):
        return None
    if operands[1].constant.device.type != 'cpu' or not unit_is_exact():
        return None
    epilogue = Epilogue(operands, attrs, False, op)
    weight = operands[1].constant.numpy().reshape(len(operands[1].constant), -1)
    channels = len(weight)
    columns = channels // groups
    depth = DEPTH_INT8 if operands[0].dtype == 'si8' and operands[1].dtype == 'si8' else 2
    panels = pack(weight, groups, depth)
    bias = operands[2].constant.numpy().astype(np.int64)
    if depth == 4:
        bias = bias - 128 * weight.astype(np.int64).sum(1)
    start = by_parts(bias.astype(np.int32), groups)
    scales = column_scales(epilogue.requantizer, channels, groups)
    residual_scales = NO_SCALES if epilogue.residual is None else column_scales(
        epilogue.residual, channels, groups)
    rows = math.prod(attrs['out_shapes'][0][:-1])
    # Few rows: each thread takes a part of a large weight, not all of it.
    by_columns = groups == 1 and panels.nbytes > 4 * rows * panels.shape[2]
    count = len(scales[0]) if by_columns else rows
    work = max(1, rows * weight.size // count // MULTIPLICATIONS)

    def into(inputs: Tensors, outputs: Tensors) -> None:
        residual = inputs[3] if len(inputs) > 3 else None
        product(count, rows, by_columns, *place_of(inputs[0]), window, panels, depth, columns, start,
                *scales, *place_of(residual), *residual_scales, *place_of(outputs[0]), work=work)

    return into


@functools.lru_cache(maxsize=None)
def unit_is_exact() -> bool:
    """Whether the unit gives exact sums at the ends of its operands' ranges, tried once.

    A unit that saturates within a sum, as vpmaddubsw does, gives others.
    """
    features = 70  # no whole number of words, and more than one
    window = Window(1, 1, features, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, features, 1)
    signs = np.arange(3 * features).reshape(3, features) % 7 < 4
    weight = np.where(signs, -128, 127).astype(np.int8)
    scales = np.zeros((1, 3, GROUP), np.int32)
    scales[:, 0], scales[:, 1], scales[:, 2] = 1 << 14, 14, (1 << 13) - 1
    limits = np.array([INT64, -2**31, 2**31 - 1], np.int32)
    for dtype, depth in ((np.int8, DEPTH_INT8), (np.int16, 2)):
        ends = np.iinfo(dtype)
        values = np.stack([np.full(features, ends.min), np.full(features, ends.max),
                           np.where(signs[0], ends.max, ends.min)]).astype(dtype)
        expected = values.astype(np.int64) @ weight.T.astype(np.int64)
        start = np.zeros(3, np.int64) - (128 * weight.astype(np.int64).sum(1) if depth == 4 else 0)
        found = np.empty((3, 3), np.int32)
        product(3, 3, False, values.ctypes.data, values.itemsize, window,
                pack(weight, 1, depth), depth, 3, by_parts(start.astype(np.int32), 1), scales,
                limits, 0, 0, *NO_SCALES, found.ctypes.data, found.itemsize)
        if not np.array_equal(found, expected):
            FAST.notes.append('the integer unit is not exact here: products by the reference')
            return False
    return True
