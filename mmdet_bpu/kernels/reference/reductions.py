"""reduce_sum, reduce_max, reduce_min, max_pool and topk on integers."""
import math

import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.kernels.reference.carriers import CARRIERS
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits
from mmdet_bpu.program.dtypes import INT32_MAX, largest_magnitude
from mmdet_bpu.program.integer_rules import sum_fault
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]


def plan_reduce_sum(operands: list[Operand], attrs: dict) -> Requantizer:
    """Plan of bpu.reduce_sum.

    Raises:
        BpuError: if the sum of an si8 or si16 input may leave int32.
    """
    operand = operands[0]
    size = math.prod(operand.shape[dim] for dim in attrs['dims'])
    bound = min(size * largest_magnitude(operand.dtype), INT32_MAX + 1)
    fault = sum_fault(size, operand.dtype)
    if fault and operand.dtype != 'si32':  # whose sums are looked at when it runs
        raise BpuError(f'bpu.reduce_sum: {fault}')
    return Requantizer(attrs['multiplier'], attrs['shift'],
                       *output_limits(attrs['out_dtypes'][0]), bound=bound)


@kernel('bpu.reduce_sum', plan_reduce_sum)
def reduce_sum(inputs: Tensors, attrs: dict, plan: Requantizer) -> Tensors:
    """bpu.reduce_sum: int32 sum over dims (kept as 1), requantized.

    Raises:
        BpuError: if the sum of an si32 input leaves int32; for other types the plan excludes it.
    """
    if inputs[0].dtype == torch.int32:
        total = inputs[0].sum(list(attrs['dims']), keepdim=True, dtype=torch.int64)
        if total.numel() and not -INT32_MAX - 1 <= total.min() <= total.max() <= INT32_MAX:
            raise BpuError('bpu.reduce_sum: the sum of an si32 tensor left int32: requantize '
                           'it to si16 before')
    else:
        total = _sum_int32(inputs[0], attrs['dims'])
    return [plan(total, attrs['out_dtypes'][0])]


def _sum_int32(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """Sum in int32 with dims kept as 1, widening a cache-sized part of the input at a time."""
    dims = sorted(dim % x.ndim for dim in dims)
    kept = dims[0] if dims else x.ndim
    rows = x.reshape(-1, *x.shape[kept:])
    inner = [dim - kept + 1 for dim in dims]
    shape = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    out = torch.empty(shape, dtype=torch.int32, device=x.device)
    target = out.view(len(rows), *(size for dim, size in enumerate(shape)
                                   if dim >= kept and dim not in dims))

    def work(part: slice) -> None:
        target[part].copy_(rows[part].to(torch.int32).sum(inner, dtype=torch.int32))

    for_each_block(work, row_blocks(len(rows), math.prod(rows.shape[1:])), x.device)
    return out


@kernel('bpu.reduce_max')
def reduce_max(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.reduce_max: largest value over dims (kept as 1), same scale."""
    return [inputs[0].amax(list(attrs['dims']), keepdim=True)]


@kernel('bpu.reduce_min')
def reduce_min(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.reduce_min: smallest value over dims (kept as 1), same scale."""
    return [inputs[0].amin(list(attrs['dims']), keepdim=True)]


@kernel('bpu.max_pool')
def max_pool(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.max_pool: (N, H, W, C) -> (N, OH, OW, C); padding never wins.

    Padding is minus infinity in the carrier, so a window takes the largest value inside the image.

    Raises:
        BpuError: if padding is as wide as a window, which could then hold no value at all.
    """
    x, pad = inputs[0], attrs['pad']
    carrier = CARRIERS['select64' if x.dtype == torch.int32 else 'select'].dtype
    ends = []
    for axis in (0, 1):
        size, stride = x.shape[1 + axis], attrs['stride'][axis]
        window = attrs['dilation'][axis] * (attrs['kernel'][axis] - 1) + 1
        before, after = pad[axis], pad[axis + 2]
        if max(before, after) >= window:
            raise BpuError(f'bpu.max_pool: padding {list(pad)} is as wide as a window of '
                           f'{window}: pad less than the window')
        span = size + before + after - window
        count = (-(-span // stride) if attrs['ceil_mode'] else span // stride) + 1
        if attrs['ceil_mode'] and (count - 1) * stride >= size + before:
            count -= 1  # as in torch, the last window starts in the image or before it
        ends.append((count - 1) * stride + window - size - before)
    padded = F.pad(x.permute(0, 3, 1, 2).to(carrier), (pad[1], ends[1], pad[0], ends[0]),
                   value=-math.inf)
    pooled = F.max_pool2d(padded, tuple(attrs['kernel']), tuple(attrs['stride']), 0,
                          tuple(attrs['dilation']))
    return [pooled.permute(0, 2, 3, 1).to(x.dtype).contiguous()]


@kernel('bpu.topk')
def topk(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.topk: the k largest along dim, descending; of equal values the lower index first.

    Returns:
        list[torch.Tensor]: Values in the input's type, indices as int32.
    """
    dim, k = attrs['dim'], attrs['k']
    # Reversed order by complement: ~x = -x - 1 never overflows, -x does at the lowest value.
    order = torch.sort(inputs[0].bitwise_not(), dim=dim, stable=True).indices
    order = order.narrow(dim, 0, k).contiguous()
    return [inputs[0].gather(dim, order), order.to(torch.int32)]
