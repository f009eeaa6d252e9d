"""What each integer op is on the vector machine.

The reference's planners check an instruction and give its constants: what they refuse is refused
here with the same words.
"""
from dataclasses import dataclass
from typing import Callable, Optional, Union

import torch

from mmdet_bpu.kernels.fast import vector_machine as machine
from mmdet_bpu.kernels.fast.requantize import HALVES_TIES, ScaleConstants
from mmdet_bpu.kernels.fast.vector_program import Assembler, Reduction, Register, pair
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.kernels.reference.requantizer import Requantizer
from mmdet_bpu.program.numerics import Operand

Emit = Callable[[Assembler, int, list[Register]], Register]
"""``(assembler, kind of the result, sources) -> result``."""
Source = Union[int, torch.Tensor]
"""Which operand of the instruction, or a constant made from one."""


@dataclass(frozen=True)
class VectorOp:
    """An instruction of the vector machine.

    Attributes:
        sources (list[int | torch.Tensor]): What it reads; broadcast to the result's shape unless
            it reduces.
        emit (Emit | None): Adds its operations to a program; None if the result is the input.
        reduction (Reduction | None): What becomes one element, if it reduces.
        per_column (bool): All sources but the first must be the same for all rows.
    """
    sources: list[Source]
    emit: Optional[Emit]
    reduction: Optional[Reduction] = None
    per_column: bool = False


VECTOR_OPS: dict[str, Callable[[list[Operand], dict], Optional[VectorOp]]] = {}


def vector_op(op: str) -> Callable:
    """Decorate the function that makes a :class:`VectorOp`, or None, from operands and attrs."""

    def remember(make: Callable) -> Callable:
        VECTOR_OPS[op] = make
        return make

    return remember


def checked_plan(op: str, operands: list[Operand], attrs: dict):
    """The reference's plan of an instruction.

    Raises:
        BpuError: The numeric contract excludes it.
    """
    return REFERENCE.kernels[op].planner(operands, attrs)


def _addition(op: str, code: int) -> None:

    @vector_op(op)
    def make(operands: list[Operand], attrs: dict) -> VectorOp:
        plan = checked_plan(op, operands, attrs)
        constants = [ScaleConstants.of(side) for side in plan.sides]
        bits = plan.guard_bits
        rounding = (bits, (1 << bits - 1) - 1, 1) if bits else (0, 0, 0)

        def emit(assembler: Assembler, kind: int, sources: list[Register]) -> Register:
            sides = [source if constant is not None else assembler.scale(source, scaling)
                     for source, constant, scaling in zip(sources, plan.constants, constants)]
            return assembler.elementwise(code, kind, sides, *rounding, plan.low, plan.high)

        return VectorOp([index if constant is None else constant
                         for index, constant in enumerate(plan.constants)], emit)


_addition('bpu.add', machine.ADD)
_addition('bpu.sub', machine.SUB)


def _scaling(requantizer: Requantizer) -> Optional[ScaleConstants]:
    """The constants of a requantization by one pair; None of one per channel."""
    constants = ScaleConstants.of(requantizer)
    return constants if len(constants.multiplier) == 1 else None


@vector_op('bpu.mul')
def mul(operands: list[Operand], attrs: dict) -> Optional[VectorOp]:
    """bpu.mul: the most frequent requantization is done in the same loop."""
    constants = _scaling(checked_plan('bpu.mul', operands, attrs))
    if constants is None:
        return None
    def emit(assembler: Assembler, kind: int, sources: list[Register]) -> Register:
        if constants.mode == HALVES_TIES:
            return assembler.elementwise(machine.MUL_HALVES_TIES, kind, sources, *pair(constants))
        return assembler.scale(assembler.elementwise(machine.MUL, kind, sources), constants)

    return VectorOp([0, 1], emit)


@vector_op('bpu.requantize')
def requantize(operands: list[Operand], attrs: dict) -> VectorOp:
    """bpu.requantize: by one pair, or by one per element of the last dimension."""
    constants = ScaleConstants.of(checked_plan('bpu.requantize', operands, attrs))
    if len(constants.multiplier) == 1:
        return VectorOp([0], lambda assembler, kind, sources: assembler.scale(
            sources[0], constants))
    columns = [torch.from_numpy(array) for array in
               (constants.multiplier, constants.shift, constants.half)]
    return VectorOp([0, *columns], lambda assembler, kind, sources: assembler.scale_columns(
        sources[0], constants, *sources[1:]), per_column=True)


@vector_op('bpu.relu')
def relu(operands: list[Operand], attrs: dict) -> VectorOp:
    """bpu.relu: max(x, 0)."""
    return VectorOp([0], lambda assembler, kind, sources: assembler.unary(machine.RELU, *sources))


def _comparison(op: str, limit: int) -> None:

    @vector_op(op)
    def make(operands: list[Operand], attrs: dict) -> VectorOp:
        return VectorOp([0], lambda assembler, kind, sources: assembler.unary(
            machine.EXCEEDS, *sources, limit))


_comparison('bpu.positive', 0)
_comparison('bpu.not_negative', -1)


def _choice(op: str, code: int) -> None:

    @vector_op(op)
    def make(operands: list[Operand], attrs: dict) -> VectorOp:
        return VectorOp([0, 1], lambda assembler, kind, sources: assembler.elementwise(
            code, kind, sources))


_choice('bpu.max', machine.MAX)
_choice('bpu.min', machine.MIN)


@vector_op('bpu.where')
def where(operands: list[Operand], attrs: dict) -> VectorOp:
    """bpu.where: ``fill`` is a constant like another."""
    other = 2 if len(operands) > 2 else torch.tensor(attrs['fill'], dtype=torch.int32)
    return VectorOp([0, 1, other], lambda assembler, kind, sources: assembler.elementwise(
        machine.SELECT, kind, sources))


@vector_op('bpu.table')
def table(operands: list[Operand], attrs: dict) -> VectorOp:
    """bpu.table: one entry per input code."""
    entries = checked_plan('bpu.table', operands, attrs).lookup.to(torch.int16)

    def emit(assembler: Assembler, kind: int, sources: list[Register]) -> Register:
        return assembler.unary(machine.TABLE, sources[0], assembler.constant(entries),
                               len(entries) - 1)

    return VectorOp([0], emit)


@vector_op('bpu.reshape')
def reshape(operands: list[Operand], attrs: dict) -> VectorOp:
    """bpu.reshape: the same elements in the same order: nothing to do inside of a chain."""
    return VectorOp([0], None)


def _reduction(operand: Operand, attrs: dict) -> Optional[Reduction]:
    """Dimensions grouped as (A, B, C, D), of which B and D are reduced; None if they are not so."""
    dims = {dim % len(operand.shape) for dim in attrs['dims']}
    groups: list[list] = []
    for dim, size in enumerate(operand.shape):
        reduced = dim in dims
        if size > 1 and groups and groups[-1][0] == reduced:
            groups[-1][1] *= size
        elif size > 1:
            groups.append([reduced, size])
    if not dims or len(groups) > 4 or (len(groups) == 4 and groups[0][0]):
        return None
    if not groups or not groups[-1][0]:
        groups.append([True, 1])
    sizes = [size for _, size in groups]
    if len(sizes) < 3:  # (A, D)
        return Reduction(1, 1, sizes[-1])
    return Reduction(*sizes[-3:])


@vector_op('bpu.reduce_sum')
def reduce_sum(operands: list[Operand], attrs: dict) -> Optional[VectorOp]:
    """bpu.reduce_sum; the sum of si32 is looked at by the reference."""
    constants = _scaling(checked_plan('bpu.reduce_sum', operands, attrs))
    reduction = _reduction(operands[0], attrs)
    if constants is None or reduction is None or operands[0].dtype == 'si32':
        return None
    return VectorOp([0], lambda assembler, kind, sources: assembler.scale(assembler.reduce(
        machine.SUM_ROWS, machine.SUM_COLUMNS, *sources, reduction), constants), reduction)


def _extreme(op: str, code: int, column_code: int) -> None:

    @vector_op(op)
    def make(operands: list[Operand], attrs: dict) -> Optional[VectorOp]:
        reduction = _reduction(operands[0], attrs)
        return VectorOp([0], lambda assembler, kind, sources: assembler.reduce(
            code, column_code, *sources, reduction), reduction) if reduction else None


_extreme('bpu.reduce_max', machine.MAX_ROWS, machine.MAX_COLUMNS)
_extreme('bpu.reduce_min', machine.MIN_ROWS, machine.MIN_COLUMNS)
