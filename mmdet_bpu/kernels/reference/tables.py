"""bpu.table: one lookup per element."""
from dataclasses import dataclass

import numpy as np
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.program.dtypes import TORCH_DTYPES, integer_range
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.table_fit import expand_table

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class TablePlan:
    """A table with one entry per input code.

    Attributes:
        lookup (torch.Tensor): Entries in order of the unsigned reading of the input's bits.
        in_dtype (str): Element type of the input.
    """

    lookup: torch.Tensor
    in_dtype: str


def plan_table(operands: list[Operand], attrs: dict) -> TablePlan:
    """Expand a table to all its inputs.

    Raises:
        BpuError: if the table is malformed, does not fit its input, or leaves its output type.
    """
    in_dtype, out_dtype = operands[0].dtype, attrs['out_dtypes'][0]
    values = expand_table(attrs)
    low, high = integer_range(in_dtype)
    if len(values) != high - low + 1:
        raise BpuError(f'a table of {len(values)} values cannot be read with {in_dtype}')
    out_low, out_high = integer_range(out_dtype)
    if values.min() < out_low or values.max() > out_high:
        raise BpuError(f'table entries {values.min()} to {values.max()} leave {out_dtype}')
    lookup = torch.as_tensor(np.roll(values, low)).to(TORCH_DTYPES[out_dtype])
    return TablePlan(lookup, in_dtype)


@kernel('bpu.table', plan_table)
def table(inputs: Tensors, attrs: dict, plan: TablePlan) -> Tensors:
    """bpu.table: one lookup per element."""
    x = inputs[0].contiguous()
    lookup = plan.lookup.to(x.device)
    unsigned = x.view(torch.uint8 if x.dtype == torch.int8 else torch.uint16).view(-1)
    out = torch.empty(x.shape, dtype=lookup.dtype, device=x.device)
    target = out.view(-1)

    def work(part: slice) -> None:
        torch.index_select(lookup, 0, unsigned[part].to(torch.int32), out=target[part])

    for_each_block(work, row_blocks(len(target), 1), x.device)
    return [out]
