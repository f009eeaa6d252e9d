"""Average pooling written as pools of whole windows, which is all that the unit averages.

    windows cut off by the border (ceil_mode, or padding that is not counted)
        ->  a pool of the whole windows, one of smaller windows per border, put together again
    divisor_override  ->  a pool times (window size / divisor)
    adaptive, to 1    ->  a mean;  to sizes that divide  ->  a pool
"""
from typing import Any, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.graph.call_arguments import pair
from mmdet_bpu.graph.opening import only_where

LONGEST_REDUCTION = 65535  # elements; the limit of the reduction unit

Run = Tuple[int, int, int]  # first pixel, pixel after the last one, window


def window_count(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Results of a pool along an axis; the last window starts in the image or before it."""
    span = size + 2 * padding - kernel
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def window_runs(starts: Sequence[int], kernel: int, size: int) -> List[Run]:
    """Windows cut to the image, those that stay whole joined in one run."""
    runs: List[Run] = []
    for start in starts:
        begin, end = max(start, 0), min(start + kernel, size)
        if end - begin == kernel and runs and runs[-1][2] == kernel:
            runs[-1] = (runs[-1][0], end, kernel)
        else:
            runs.append((begin, end, end - begin))
    return runs


def _runs(input: Tensor, kernel: Sequence[int], stride: Sequence[int],
          padding: Sequence[int], ceil_mode: bool, counted: bool) -> List[List[Run]]:
    """Runs along height and width; of the padded image where padding is counted."""
    found = []
    for axis in (0, 1):
        size, pad = input.shape[2 + axis], padding[axis]
        count = window_count(size, kernel[axis], stride[axis], pad, ceil_mode)
        first, size = (0, size + 2 * pad) if counted else (-pad, size)
        starts = [first + i * stride[axis] for i in range(count)]
        found.append(window_runs(starts, kernel[axis], size))
    return found


def cuts_windows(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: Any = None) -> bool:
    """Whether an average pool of images has windows that are not whole, or another divisor."""
    if input.dim() != 4:
        return False
    kernel = pair(kernel_size)
    runs = _runs(input, kernel, pair(stride or kernel), pair(padding), ceil_mode,
                 count_include_pad)
    return divisor_override is not None or max(map(len, runs)) > 1 or any(
        run[0][2] != size for run, size in zip(runs, kernel))


@only_where(lambda call: cuts_windows(*call.args, **call.kwargs))
def open_avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                    ceil_mode: bool = False, count_include_pad: bool = True,
                    divisor_override: Any = None) -> Tensor:
    """See the module's docstring; only for calls that :func:`cuts_windows` names."""
    kernel, padding = pair(kernel_size), pair(padding)
    stride = pair(stride or kernel)
    if divisor_override is not None:
        return _pool_by(input, kernel, stride, padding, ceil_mode,
                        kernel[0] * kernel[1] / divisor_override)
    rows, columns = _runs(input, kernel, stride, padding, ceil_mode, count_include_pad)
    if count_include_pad and any(padding):
        input = F.pad(input, (padding[1], padding[1], padding[0], padding[0]))
    parts = []
    for top, bottom, height in rows:
        line = []
        for left, right, width in columns:
            part = input[:, :, top:bottom, left:right]
            line.append(F.avg_pool2d(part, (height, width), stride))
        parts.append(torch.cat(line, 3) if len(line) > 1 else line[0])
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _pool_by(input: Tensor, kernel: Sequence[int], stride: Sequence[int],
             padding: Sequence[int], ceil_mode: bool, factor: float) -> Tensor:
    """A pool over zeros around the image, whose windows are all whole, times a factor."""
    sides = []
    for axis in (1, 0):
        size, pad = input.shape[2 + axis], padding[axis]
        count = window_count(size, kernel[axis], stride[axis], pad, ceil_mode)
        reached = (count - 1) * stride[axis] + kernel[axis]
        sides += [pad, max(reached - size - pad, 0)]
    input = F.pad(input, sides) if any(sides) else input
    return F.avg_pool2d(input, kernel, stride) * factor


def open_adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """A mean to 1 x 1, in two steps where the map is larger than one reduction adds up; a pool."""
    height, width = input.shape[-2:]
    rows, columns = output_size if isinstance(output_size, (tuple, list)) else (output_size, ) * 2
    rows, columns = rows or height, columns or width
    if (rows, columns) == (1, 1):
        if height * width <= LONGEST_REDUCTION:
            return torch.mean(input, (-2, -1), keepdim=True)
        return torch.mean(torch.mean(input, -1, keepdim=True), -2, keepdim=True)
    if height % rows or width % columns or input.dim() != 4:
        return NotImplemented
    return F.avg_pool2d(input, (height // rows, width // columns))
