"""avg_pool: an exact window sum, requantized by one over the window's size."""
import math

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits
from mmdet_bpu.program.dtypes import TORCH_DTYPES, largest_magnitude
from mmdet_bpu.program.integer_rules import sum_fault
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]


def plan_avg_pool(operands: list[Operand], attrs: dict) -> Requantizer:
    """Plan of bpu.avg_pool.

    Raises:
        BpuError: if the sum of a window may leave int32, or the input is neither si8 nor si16.
    """
    dtype, area = operands[0].dtype, math.prod(attrs['kernel'])
    if dtype not in ('si8', 'si16'):
        raise BpuError(f'bpu.avg_pool takes si8 and si16 values, found {dtype}')
    fault = sum_fault(area, dtype)
    if fault:
        raise BpuError(f'bpu.avg_pool: {fault}')
    bound = area * largest_magnitude(dtype)
    return Requantizer(attrs['multiplier'], attrs['shift'],
                       *output_limits(attrs['out_dtypes'][0]), bound=bound)


@kernel('bpu.avg_pool', plan_avg_pool)
def avg_pool(inputs: Tensors, attrs: dict, plan: Requantizer) -> Tensors:
    """bpu.avg_pool: (N, H, W, C) -> (N, OH, OW, C); whole windows only.

    Each row is summed along the window's height first, then along its width: no partial sum is
    larger than the whole.
    """
    x = inputs[0]
    (kh, kw), (sy, sx) = attrs['kernel'], attrs['stride']
    rows, columns = (x.shape[1] - kh) // sy + 1, (x.shape[2] - kw) // sx + 1
    out = torch.empty((len(x), rows, columns, x.shape[3]),
                      dtype=TORCH_DTYPES[attrs['out_dtypes'][0]], device=x.device)

    def work(part: slice) -> None:
        count = len(range(*part.indices(rows)))
        lines = [x[:, begin:begin + sy * (count - 1) + 1:sy]
                 for begin in range(part.start * sy, part.start * sy + kh)]
        tall = lines[0].to(torch.int32, copy=True)
        for line in lines[1:]:
            tall.add_(line)
        total = tall[:, :, :sx * (columns - 1) + 1:sx].clone()
        for begin in range(1, kw):
            total.add_(tall[:, :, begin:begin + sx * (columns - 1) + 1:sx])
        out[:, part] = plan.scale_(total).to(out.dtype)

    for_each_block(work, row_blocks(rows, x[:, :1].numel() * sy), x.device)
    return [out]
