"""max_pool and avg_pool: each row of the result along the height first, then along the width."""
import math
from typing import Callable, Optional

import numpy as np
from numba import njit, types

from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.bilinear import rounded
from mmdet_bpu.kernels.fast.spread import spread
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.numerics import Operand

I64, NUMBERS = types.int64, types.UniTuple(types.int64, 4)
MAX_TYPES = {'si8': types.int8, 'si16': types.int16, 'si32': types.int32}
# avg_pool of another type, or to another one, is left to the reference.
AVG_TYPES = {'si8': types.int8, 'si16': types.int16}


@njit([types.void(I64, I64, kind[:, :, :, ::1], kind[:, :, :, ::1], NUMBERS, NUMBERS)
       for kind in MAX_TYPES.values()], nogil=True, cache=True)
def max_rows(first, end, values, out, rows, columns):
    """Rows first to end - 1 of the result, of all images.

    Args:
        values, out: (N, H, W, C), (N, OH, OW, C).
        rows, columns: Taps, stride, padding before and dilation along the height, the width.
    """
    height, width = values.shape[1:3]
    line = np.empty(values.shape[2:], values.dtype)
    flat = line.reshape(-1)
    for row in range(first, end):
        image, y = values[row // out.shape[1]], row % out.shape[1]
        begun = False
        for tap in range(rows[0]):
            source = y * rows[1] - rows[2] + tap * rows[3]
            if 0 <= source < height:
                pixels = image[source].reshape(-1)
                if begun:
                    for i in range(flat.size):
                        flat[i] = max(flat[i], pixels[i])
                else:
                    flat[:] = pixels
                    begun = True
        for x in range(out.shape[2]):
            result = out[row // out.shape[1], y, x]
            begun = False
            for tap in range(columns[0]):
                source = x * columns[1] - columns[2] + tap * columns[3]
                if 0 <= source < width:
                    pixel = line[source]
                    if begun:
                        for i in range(result.size):
                            result[i] = max(result[i], pixel[i])
                    else:
                        result[:] = pixel
                        begun = True


@njit([types.void(I64, I64, kind[:, :, :, ::1], kind[:, :, :, ::1], NUMBERS, NUMBERS, NUMBERS)
       for kind in AVG_TYPES.values()], nogil=True, cache=True)
def mean_rows(first, end, values, out, rows, columns, scaling):
    """As :func:`max_rows`, for the sum over whole windows, rescaled.

    Args:
        scaling: Multiplier, shift, least and largest result.
    """
    line = np.empty(values.shape[2:], np.int32)
    flat, total = line.reshape(-1), np.empty(values.shape[3], np.int32)
    multiplier, shift, low, high = scaling
    for row in range(first, end):
        image, y = values[row // out.shape[1]], row % out.shape[1]
        flat[:] = 0
        for tap in range(rows[0]):
            pixels = image[y * rows[1] + tap].reshape(-1)
            for i in range(flat.size):
                flat[i] += pixels[i]
        for x in range(out.shape[2]):
            result = out[row // out.shape[1], y, x]
            total[:] = 0
            for tap in range(columns[0]):
                pixel = line[x * columns[1] + tap]
                for i in range(total.size):
                    total[i] += pixel[i]
            for i in range(total.size):
                value = np.int64(total[i]) * multiplier
                if shift > 0:
                    value = rounded(value, shift)
                else:  # beyond the ends before the shift, so that it stays within int64
                    value = min(max(value, low - 1), high + 1) << -shift
                result[i] = min(max(value, low), high)


@FAST.into('bpu.max_pool')
def max_pool(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.max_pool: (N, H, W, C) -> (N, OH, OW, C); padding never wins."""
    results = attrs['out_shapes'][0]
    axes = [(attrs['kernel'][axis], attrs['stride'][axis], attrs['pad'][axis],
             attrs['dilation'][axis]) for axis in (0, 1)]
    if not all(_holds_pixels(operands[0].shape[1 + axis], results[1 + axis], *numbers,
                             attrs['pad'][axis + 2])
               for axis, numbers in enumerate(axes)):
        return None  # the reference says which padding is too wide
    return _run(max_rows, operands[0], results, axes)


def _holds_pixels(size: int, count: int, taps: int, stride: int, before: int, dilation: int,
                  behind: int) -> bool:
    """Whether each window has a pixel of the image along an axis, and padding is narrower."""
    starts = np.arange(count)[:, None] * stride - before
    pixels = starts + np.arange(taps) * dilation
    window = dilation * (taps - 1) + 1
    return max(before, behind) < window and bool(((pixels >= 0) & (pixels < size)).any(1).all())


@FAST.into('bpu.avg_pool')
def avg_pool(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.avg_pool: (N, H, W, C) -> (N, OH, OW, C); whole windows only."""
    plan = REFERENCE.kernels['bpu.avg_pool'].planner(operands, attrs)
    if attrs['out_dtypes'][0] != operands[0].dtype or len(plan.multiplier) > 1:
        return None
    axes = [(kernel, stride, 0, 1) for kernel, stride in zip(attrs['kernel'], attrs['stride'])]
    # A shift to the left by 31 saturates all that is not 0.
    scaling = int(plan.multiplier[0]), max(int(plan.shift[0]), -31), plan.low, plan.high
    return _run(mean_rows, operands[0], attrs['out_shapes'][0], axes, scaling)


def _run(loop: Callable, operand: Operand, results: tuple[int, ...], axes: list, *more: tuple
         ) -> Into:
    """A loop over the rows of the result."""
    taps = axes[0][0] * operand.shape[2] + axes[1][0] * results[2]
    numbers = [tuple(int(number) for number in axis) for axis in axes]

    def run(inputs: Tensors, outputs: Tensors) -> None:
        values, out = inputs[0].numpy(), outputs[0].numpy()
        spread(lambda first, end: loop(first, end, values, out, *numbers, *more),
               math.prod(results[:2]), taps * operand.shape[3])

    return run
