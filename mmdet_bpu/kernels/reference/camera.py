"""bpu.image_convert, bpu.image_preprocess: from a camera's bytes to the integers of the image."""
from dataclasses import dataclass

import numpy as np
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.program.dtypes import INT32_MAX, TORCH_DTYPES, largest_magnitude
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]
SIGN = 0x80
"""The bit in which a byte and the same byte less 128 differ."""
LARGEST_VALUE = 255


@kernel('bpu.image_convert')
def image_convert(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.image_convert: bytes less 128, each U, V for 2 x 2 px."""
    planes = [inputs[0]]
    if len(inputs) > 1:
        planes.append(inputs[1].repeat_interleave(2, 1).repeat_interleave(2, 2))
    return [(torch.cat(planes, 3) ^ SIGN).view(torch.int8)]


@dataclass(frozen=True)
class PreprocessPlan:
    """A conversion of colours and a table for each of its channels.

    Attributes:
        matrix (list[list[int]]): One row per result.
        offset (list[int]): One per result.
        low (list[int]): Least value of each operand.
        levels (torch.Tensor): (channels, 256), in the type of the result.
    """
    matrix: list[list[int]]
    offset: list[int]
    low: list[int]
    levels: torch.Tensor


def plan_image_preprocess(operands: list[Operand], attrs: dict) -> PreprocessPlan:
    """Read the attributes.

    Raises:
        BpuError: if a sum may leave int32.
    """
    channels = operands[0].shape[3]
    matrix = np.asarray(attrs['matrix']).reshape(channels, channels).tolist()
    offset = [int(value) for value in attrs['offset']]
    most = max(sum(map(abs, row)) * largest_magnitude('si8') + abs(shift)
               for row, shift in zip(matrix, offset))
    if most > INT32_MAX:
        raise BpuError(f'bpu.image_preprocess: sums reach {most}, which int32 does not hold')
    levels = torch.tensor(np.asarray(attrs['levels']).reshape(channels, -1))
    return PreprocessPlan(matrix, offset, [int(value) for value in attrs['low']],
                          levels.to(TORCH_DTYPES[attrs['out_dtypes'][0]]))


@kernel('bpu.image_preprocess', plan_image_preprocess)
def image_preprocess(inputs: Tensors, attrs: dict, plan: PreprocessPlan) -> Tensors:
    """bpu.image_preprocess: sums of products, shifted, cut to a byte, looked up."""
    values = [channel.to(torch.int32).clamp_min(low)
              for channel, low in zip(inputs[0].unbind(3), plan.low)]
    results = []
    for row, offset, levels in zip(plan.matrix, plan.offset, plan.levels):
        total = torch.full_like(values[0], offset)
        for value, factor in zip(values, row):
            total += value * factor
        index = (total >> attrs['shift']).clamp_(0, LARGEST_VALUE)
        results.append(levels.to(index.device)[index])
    return [torch.stack(results, 3)]
