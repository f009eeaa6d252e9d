"""add, sub, mul, requantize, max, min and relu on integers, with numpy's broadcasting."""
import math

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, shape_blocks
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits, round_shift_
from mmdet_bpu.program.dtypes import (INT32_MAX, INTEGER_RANGES, TORCH_DTYPES,
                                      integer_range, largest_magnitude)
from mmdet_bpu.program.guard_bits import SIDE_LIMIT, side_limit
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]


class AddPlan:
    """Both sides' rescaling, and the constant side already rescaled.

    Raises:
        BpuError: if a side may leave 30 bits.
    """

    def __init__(self, operands: list[Operand], attrs: dict, sign: int):
        self.sign = sign
        self.sides, self.constants = [], []
        for name, operand in zip(('lhs', 'rhs'), operands):
            multiplier = _single(attrs[f'{name}_multiplier'], f'{name}_multiplier')
            shift = _single(attrs[f'{name}_shift'], f'{name}_shift')
            limit = side_limit(operand.dtype, multiplier, shift)
            if limit > SIDE_LIMIT:
                raise BpuError(f'bpu.add: the {name} side may reach {limit} guarded LSB, beyond '
                               f'2**30 - 1: choose fewer guard bits than {attrs["guard_bits"]}')
            side = Requantizer(multiplier, shift, *INTEGER_RANGES['si32'],
                               bound=largest_magnitude(operand.dtype))
            self.sides.append(side)
            self.constants.append(None if operand.constant is None else
                                  side(operand.constant, 'si32'))
        self.guard_bits = attrs['guard_bits']
        if not 0 <= self.guard_bits <= 30:
            raise BpuError(f'guard_bits must be in [0, 30], found {self.guard_bits}')
        self.out_dtype = attrs['out_dtypes'][0]
        self.low, self.high = output_limits(self.out_dtype, attrs.get('relu', False))

    def __call__(self, lhs: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
        shape = torch.broadcast_shapes(lhs.shape, rhs.shape)
        out = torch.empty(shape, dtype=TORCH_DTYPES[self.out_dtype], device=lhs.device)
        sources = [(source if constant is None else constant).expand(shape)
                   for source, constant in zip((lhs, rhs), self.constants)]

        def work(index: tuple) -> None:
            left, right = (self._side(i, source[index]) for i, source in enumerate(sources))
            if self.constants[0] is None:
                total = left.add_(right, alpha=self.sign)
            else:
                total = torch.add(left, right, alpha=self.sign)
            round_shift_(total, self.guard_bits)
            out[index].copy_(torch.clamp(total, self.low, self.high, out=total))

        for_each_block(work, shape_blocks(shape), out.device)
        return out

    def _side(self, index: int, chunk: torch.Tensor) -> torch.Tensor:
        if self.constants[index] is not None:
            return chunk
        return self.sides[index].scale_(_int32_chunk(chunk)).to(torch.int32)


def _int32_chunk(chunk: torch.Tensor) -> torch.Tensor:
    """A dense int32 copy that may be overwritten, of a possibly expanded view."""
    return torch.empty(chunk.shape, dtype=torch.int32, device=chunk.device).copy_(chunk)


def _single(value, name: str) -> int:
    values = value if isinstance(value, int) else [int(v) for v in value]
    if isinstance(values, int):
        return values
    if len(values) != 1:
        raise BpuError(f'{name} must hold one number, found {len(values)}')
    return values[0]


def plan_add(operands: list[Operand], attrs: dict) -> AddPlan:
    """Plan of bpu.add."""
    return AddPlan(operands, attrs, 1)


def plan_sub(operands: list[Operand], attrs: dict) -> AddPlan:
    """Plan of bpu.sub."""
    return AddPlan(operands, attrs, -1)


@kernel('bpu.add', plan_add)
def add(inputs: Tensors, attrs: dict, plan: AddPlan) -> Tensors:
    """bpu.add: both sides to guarded LSB, added in int32, rounded and saturated."""
    return [plan(*inputs)]


@kernel('bpu.sub', plan_sub)
def sub(inputs: Tensors, attrs: dict, plan: AddPlan) -> Tensors:
    """bpu.sub: as bpu.add, lhs - rhs."""
    return [plan(*inputs)]


def plan_mul(operands: list[Operand], attrs: dict) -> Requantizer:
    """Plan of bpu.mul.

    Raises:
        BpuError: for an si32 operand, whose product would not fit int32.
    """
    bound = math.prod(largest_magnitude(operand.dtype) for operand in operands)
    if bound > INT32_MAX:
        raise BpuError(f'bpu.mul takes si8 and si16 operands, found '
                       f'{" x ".join(operand.dtype for operand in operands)}')
    return Requantizer(attrs['multiplier'], attrs['shift'],
                       *output_limits(attrs['out_dtypes'][0]), bound=bound)


@kernel('bpu.mul', plan_mul)
def mul(inputs: Tensors, attrs: dict, plan: Requantizer) -> Tensors:
    """bpu.mul: int32 product, requantized."""
    shape = torch.broadcast_shapes(inputs[0].shape, inputs[1].shape)
    out = torch.empty(shape, dtype=TORCH_DTYPES[attrs['out_dtypes'][0]],
                      device=inputs[0].device)
    lhs, rhs = (tensor.expand(shape) for tensor in inputs)

    def work(index: tuple) -> None:
        product = _int32_chunk(lhs[index]).mul_(rhs[index])
        out[index].copy_(plan.scale_(product))

    for_each_block(work, shape_blocks(shape), out.device)
    return [out]


def plan_requantize(operands: list[Operand], attrs: dict) -> Requantizer:
    """Plan of bpu.requantize."""
    return Requantizer(
        attrs['multiplier'], attrs['shift'],
        *output_limits(attrs['out_dtypes'][0], attrs.get('relu', False)),
        bound=largest_magnitude(operands[0].dtype))


@kernel('bpu.requantize', plan_requantize)
def requantize(inputs: Tensors, attrs: dict, plan: Requantizer) -> Tensors:
    """bpu.requantize: another scale or width; per channel over the last dimension."""
    return [plan(inputs[0], attrs['out_dtypes'][0])]


@kernel('bpu.max')
def maximum(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.max: the larger of two elements on one scale."""
    return [torch.maximum(*inputs)]


@kernel('bpu.min')
def minimum(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.min: the smaller of two elements on one scale."""
    return [torch.minimum(*inputs)]


@kernel('bpu.relu')
def relu(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.relu: max(x, 0), same scale."""
    integer_range(attrs['out_dtypes'][0])
    return [inputs[0].clamp_min(0)]
