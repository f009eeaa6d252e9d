"""Intersection over union in the float32 steps of mmcv's compiled CPU operators.

The steps, and their order, are those of ``mmcv/ops/csrc/pytorch/cpu/nms.cpp`` (mmcv 2.1.0), each
rounded to float32 by itself (so it is compiled for x86-64; elsewhere compilers may fuse two):

    area  = (x2 - x1 + offset) * (y2 - y1 + offset)
    width = max(0, min(x2, x2') - max(x1, x1') + offset), height alike
    inter = width * height
    IoU   = inter / (area + area' - inter)

C++ has ``max(0, NaN) = 0`` where torch and numpy have NaN. The IoU is the same: a width is NaN only
where a coordinate is NaN or both edges of a box lie at the same infinity, and then its area is NaN.
"""
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.errors import BpuError

Columns = TypeVar('Columns', Tensor, np.ndarray)


def box_columns(boxes: Tensor, offset: int) -> Tensor:
    """Corners and areas, one row each: x1, y1, x2, y2, area.

    Args:
        boxes (Tensor): (N, 4), float32, px.
        offset (int): 1 where x2 and y2 are the last pixel inside a box, else 0.

    Returns:
        Tensor: (5, N).
    """
    x1, y1, x2, y2 = boxes.detach().unbind(1)
    return torch.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def pairwise_iou(first: Columns, second: Columns, offset: int) -> Columns:
    """IoU of every column of ``first`` with every column of ``second``.

    Tensors suit many boxes against many, on any device; arrays, quicker to call, one against many.

    Args:
        first (Tensor | np.ndarray): (5, A), of :func:`box_columns`.
        second (Tensor | np.ndarray): (5, B).
        offset (int): As for :func:`box_columns`.

    Returns:
        Tensor | np.ndarray: (A, B); NaN where inter and union are 0.
    """
    module = np if isinstance(first, np.ndarray) else torch
    x1, y1, x2, y2, area = first[:, :, None]
    inter = module.minimum(x2, second[2])
    inter -= module.maximum(x1, second[0])
    inter += offset
    module.clip(inter, 0, None, out=inter)
    height = module.minimum(y2, second[3])
    height -= module.maximum(y1, second[1])
    height += offset
    module.clip(height, 0, None, out=height)
    inter *= height
    union = module.add(area, second[4], out=height)
    union -= inter
    inter /= union
    return inter


def require_float32(operator: str, **tensors: Tensor) -> None:
    """Refuse what the compiled operators refuse too.

    Raises:
        BpuError: A tensor is not float32.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise BpuError(f'mmcv operator {operator!r} takes {name} of torch.float32, found '
                           f'{tensor.dtype}; convert them with .float()')
