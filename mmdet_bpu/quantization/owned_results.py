"""Which results nobody but their call has a hold on: a fake quantizer may overwrite them.

New memory costs more than the rounding: 3 ns an element of a large tensor, for the pages that the
system clears, against 0.3 ns.
"""
import functools
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.graph.sites import function_name

RELU = frozenset((F.relu, torch.relu, Tensor.relu))
"""Spellings of relu."""

# Their results are new tensors, and are not what their own backward passes read.
_NEW = frozenset((
    'conv1d', 'conv2d', 'conv3d', 'conv_transpose1d', 'conv_transpose2d', 'linear', 'matmul', 'bmm',
    'addmm', 'baddbmm', 'add', 'radd', 'sub', 'rsub', 'subtract', 'mul', 'rmul', 'multiply', 'div',
    'truediv', 'sum', 'mean', 'grid_sample', 'interpolate'))
# Nodes that do not keep their result for their backward pass.
_KEEP_NO_RESULT = frozenset((
    'ConvolutionBackward0', 'AddBackward0', 'SubBackward0', 'MulBackward0', 'AddmmBackward0',
    'MmBackward0', 'BmmBackward0', 'NativeBatchNormBackward0', 'CudnnBatchNormBackward0',
    'UpsampleNearest2DBackward0', 'UpsampleBilinear2DBackward0', '_OnGridBackward',
    '_OnGridInOnePassBackward', 'LearnedOnGridBackward'))


@functools.lru_cache(maxsize=4096)
def makes_new(func: Callable) -> bool:
    """Whether the result of ``func``, which is not in place, is its own and may be overwritten."""
    return function_name(func) in _NEW


def is_unsaved(x: Tensor) -> bool:
    """Whether no backward pass reads ``x`` for all that its maker knows.

    Who overwrites ``x`` besides must know that no other reader follows.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return True
    return x._base is None and type(x.grad_fn).__name__ in _KEEP_NO_RESULT
