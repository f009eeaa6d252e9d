"""bpu.conv2d and bpu.linear on the processor's integer unit."""
from typing import Optional

import numpy as np
import torch

from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.product_loops import (COLUMNS, DEPTH_INT8, GROUP, Window, pack,
                                                   product)
from mmdet_bpu.kernels.fast.requantize import Scaling
from mmdet_bpu.kernels.kernel_set import Into, Tensors
from mmdet_bpu.kernels.reference.epilogue import Epilogue
from mmdet_bpu.program.numerics import Operand

EMPTY = {dtype: np.empty(0, dtype) for dtype in (np.int8, np.int16)}
NO_ROWS = {dtype: np.empty((0, 0), dtype) for dtype in (np.int8, np.int16, np.int32)}
NO_RANGE = np.zeros(3, np.int32)


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
    return plan_product(operands, attrs, window, groups, 'bpu.conv2d')


def plan_product(operands: list[Operand], attrs: dict, window: Window, groups: int,
                 op: str) -> Optional[Into]:
    """A product with a constant weight, ready to run; None for what no integer unit takes.

    Raises:
        BpuError: What the numeric contract excludes; see :class:`Epilogue`.
    """
    if any(operand.constant is None for operand in operands[1:3]):
        return None
    if operands[0].constant is not None and operands[0].constant.device.type != 'cpu':
        return None
    epilogue = Epilogue(operands, attrs, False, op)
    weight = operands[1].constant.numpy().reshape(len(operands[1].constant), -1)
    depth = DEPTH_INT8 if operands[0].dtype == 'si8' and operands[1].dtype == 'si8' else 2
    panels = pack(weight, groups, depth)
    bias = operands[2].constant.numpy().astype(np.int64)
    if depth == 4:
        bias = bias - 128 * weight.astype(np.int64).sum(1)
    start = np.zeros((groups, panels.shape[1] * COLUMNS), np.int32)
    columns = len(weight) // groups
    start[:, :columns] = bias.astype(np.int32).reshape(groups, columns)
    channels = len(weight)
    scales, result_range = _scaling(epilogue.requantizer, channels)
    residual_scales, residual_range = NO_ROWS[np.int32], NO_RANGE
    if epilogue.residual is not None:
        residual_scales, residual_range = _scaling(epilogue.residual, channels)
    rows = int(np.prod(attrs['out_shapes'][0][:-1]))
    by_columns = groups == 1 and panels.nbytes > 4 * rows * panels.shape[2]
    count = -(-columns // GROUP) if by_columns else rows
    work = max(1, weight.size // count if by_columns else weight.size) // 16

    def into(inputs: Tensors, outputs: Tensors) -> None:
        residual = inputs[3] if len(inputs) > 3 else None
        product(count, rows, by_columns, *_pair(inputs[0], EMPTY, (-1, )), window, panels, columns,
                start, scales, result_range, *_pair(residual, NO_ROWS, (-1, channels)),
                residual_scales, residual_range, *_results(outputs[0], channels),
                work=max(1, work * (rows if by_columns else 1)))

    return into


def _scaling(requantizer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Constants (3, channels), and path, low and high."""
    scaling = Scaling(requantizer, channels)
    return (np.stack([scaling.multiplier, scaling.shift, scaling.half]),
            np.array([scaling.path, scaling.low, scaling.high], np.int32))


def _pair(tensor: Optional[torch.Tensor], empty: dict, shape: tuple) -> list[np.ndarray]:
    """A tensor as an int8 and an int16 array, of which the other one, or both, are empty."""
    array = None if tensor is None else tensor.numpy().reshape(shape)
    return [array if array is not None and array.dtype == dtype else empty[dtype]
            for dtype in (np.int8, np.int16)]


def _results(tensor: torch.Tensor, channels: int) -> list[np.ndarray]:
    array = tensor.numpy().reshape(-1, channels)
    return [array if array.dtype == dtype else NO_ROWS[dtype]
            for dtype in (np.int8, np.int16, np.int32)]
