"""The one implementation of each bpu op, by name, and what can be prepared before a run."""
from typing import Any, Callable

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import (elementwise, movement, products, reductions, sampling,
                                         tables)
from mmdet_bpu.kernels.reference.carriers import check_carriers
from mmdet_bpu.program.numerics import Operand

Kernel = Callable[[list[torch.Tensor], dict], list[torch.Tensor]]
Planner = Callable[[list[Operand], dict], Any]

KERNELS: dict[str, Kernel] = {
    'bpu.conv2d': products.conv2d,
    'bpu.linear': products.linear,
    'bpu.matmul': products.matmul,
    'bpu.add': elementwise.add,
    'bpu.sub': elementwise.sub,
    'bpu.mul': elementwise.mul,
    'bpu.requantize': elementwise.requantize_kernel,
    'bpu.relu': elementwise.relu,
    'bpu.max': elementwise.maximum,
    'bpu.min': elementwise.minimum,
    'bpu.table': tables.table,
    'bpu.reduce_sum': reductions.reduce_sum,
    'bpu.reduce_max': reductions.reduce_max,
    'bpu.max_pool': reductions.max_pool,
    'bpu.grid_sample': sampling.grid_sample,
    'bpu.topk': reductions.topk,
    'bpu.gather': movement.gather,
    'bpu.where': movement.where,
    'bpu.reshape': movement.reshape,
    'bpu.transpose': movement.transpose,
    'bpu.slice': movement.slice_,
    'bpu.concat': movement.concat,
    'bpu.flip': movement.flip,
    'bpu.roll': movement.roll,
    'bpu.tile': movement.tile,
    'bpu.pad': movement.pad,
}

PREPARE: dict[str, Planner] = {
    'bpu.conv2d': products.plan_conv2d,
    'bpu.linear': products.plan_linear,
    'bpu.matmul': products.plan_matmul,
    'bpu.add': elementwise.plan_add,
    'bpu.sub': elementwise.plan_sub,
    'bpu.mul': elementwise.plan_mul,
    'bpu.requantize': elementwise.plan_requantize,
    'bpu.table': tables.plan_table,
    'bpu.reduce_sum': reductions.plan_reduce_sum,
    'bpu.grid_sample': sampling.plan_grid_sample,
}

# Their sums run on a float unit (see carriers.py).
CARRIED = ('bpu.conv2d', 'bpu.linear', 'bpu.matmul', 'bpu.grid_sample')


def prepare_attrs(op: str, operands: list[Operand], attrs: dict) -> dict:
    """Attributes with a ``plan`` added where the op has one: call it once, when loading.

    A plan holds what depends on types, shapes and constants alone: the carrier, the weight in its
    format, an expanded table. Without one a kernel makes it on every call. Making a plan also
    proves that no accumulator can overflow.

    Args:
        op (str): Name of the instruction, e.g. ``bpu.conv2d``.
        operands (list[Operand]): Types, shapes and constants; weights and biases are constants.
        attrs (dict): Attributes, unchanged by this call.

    Raises:
        BpuError: for an unknown op, or an instruction that the contract excludes.
    """
    if op not in KERNELS:
        raise BpuError(f'no integer kernel for {op!r}: expected one of {", ".join(KERNELS)}')
    if op not in PREPARE:
        return attrs
    if op in CARRIED:
        device = next((o.constant.device for o in operands if o.constant is not None), 'cpu')
        check_carriers(str(device))
    return {**attrs, 'plan': PREPARE[op](operands, attrs)}
