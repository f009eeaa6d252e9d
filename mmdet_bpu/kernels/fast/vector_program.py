"""Assembles programs of the vector machine: virtual registers, then their places in scratch."""
from dataclasses import dataclass, field
from typing import Optional, Sequence

import numpy as np
import torch

from mmdet_bpu.kernels.fast import vector_machine as machine
from mmdet_bpu.kernels.fast.requantize import (HALVES, HALVES_TIES, INT32, INT32_TIES,
                                               ScaleConstants)
from mmdet_bpu.kernels.fast.vector_layout import Layout
from mmdet_bpu.kernels.fast.vector_loops import COLUMN, FULL, ROW

# Elements of a block: a handful of int32 registers of this size fit the first-level cache.
BLOCK = 1 << 10

SCALES = {INT32_TIES: machine.SCALE_INT32_TIES, INT32: machine.SCALE_INT32,
          HALVES_TIES: machine.SCALE_HALVES_TIES, HALVES: machine.SCALE_HALVES}
COMMUTE = (machine.ADD, machine.MUL, machine.MUL_HALVES_TIES, machine.MAX, machine.MIN)


@dataclass(frozen=True, eq=False)
class Register:
    """A virtual register.

    Attributes:
        kind (int): FULL, ROW or COLUMN.
        shared (bool): All rows are the same: it is computed once, before the first block.
    """
    kind: int
    shared: bool = False


@dataclass(frozen=True)
class _Operation:
    code: int
    space: int
    out: Optional[Register]
    sources: tuple[Register, ...]
    parameters: tuple[int, ...]
    registers: tuple[Register, ...] = ()  # further sources, named by parameters


@dataclass
class Assembler:
    """Collects the operations of a program.

    Args:
        rows (int): Rows in all.
        size (int): Elements of a row.

    Attributes:
        tensors (list[torch.Tensor | None]): What the numbers of tensors stand for; None for one
            that is known when the program runs.
        block (int): Rows of a block.
    """
    rows: int
    size: int
    tensors: list[Optional[torch.Tensor]] = field(default_factory=list)
    _setup: list[_Operation] = field(default_factory=list)
    _body: list[_Operation] = field(default_factory=list)

    @property
    def block(self) -> int:
        return min(max(1, BLOCK // self.size), self.rows)

    @property
    def operations(self) -> int:
        """Operations of a block."""
        return len(self._body)

    @property
    def full(self) -> int:
        """Kind of a register with a value per element."""
        return FULL if self.size > 1 else ROW

    def argument(self) -> int:
        """A number for a tensor that is known when the program runs."""
        self.tensors.append(None)
        return len(self.tensors) - 1

    def constant(self, tensor: torch.Tensor) -> int:
        """A number for a contiguous tensor."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def load(self, tensor: int, nbytes: int, layout: Layout) -> Register:
        """Read a tensor of elements of ``nbytes`` bytes."""
        dims = [number for pair in layout.outer for number in pair]
        register = Register(layout.kind, layout.shared)
        self._emit(machine.LOAD, register, (), (tensor, nbytes, len(layout.outer), *dims))
        return register

    def store(self, tensor: int, nbytes: int, source: Register) -> None:
        """Write a register, row after row."""
        self._body.append(_Operation(machine.STORE, source.kind, None, (source, ),
                                     (tensor, nbytes)))

    def unary(self, code: int, source: Register, *parameters: int) -> Register:
        """An operation on each element."""
        register = Register(source.kind, source.shared)
        self._emit(code, register, (source, ), parameters)
        return register

    def reduce(self, code: int, source: Register) -> Register:
        """An operation over each row."""
        register = Register(ROW)
        self._body.append(_Operation(code, FULL, register, (source, ), ()))
        return register

    def elementwise(self, code: int, kind: int, sources: Sequence[Register],
                    *parameters: int) -> Register:
        """An operation on two or three values: a FULL result, or one per row (ROW)."""
        first = sources[0]
        if kind == FULL and first.kind == ROW and code in COMMUTE:
            sources = sources[::-1]
        elif kind == FULL and first.kind == ROW and code != machine.SELECT:
            spread = Register(FULL)
            self._body.append(_Operation(machine.SPREAD_ROWS, FULL, spread, (first, ), ()))
            sources = (spread, *sources[1:])
        register = Register(kind)
        self._body.append(_Operation(code, kind, register, tuple(sources), parameters))
        return register

    def scale(self, source: Register, constants: ScaleConstants) -> Register:
        """Requantize by one pair."""
        return self.unary(SCALES.get(constants.mode, machine.SCALE_ANY), source, *pair(constants),
                          constants.mode)

    def scale_columns(self, source: Register, constants: ScaleConstants, multiplier: Register,
                      shift: Register, half: Register) -> Register:
        """Requantize by a pair per column."""
        register = Register(FULL)
        self._body.append(_Operation(
            machine.SCALE_COLUMNS, FULL, register, (source, multiplier, shift),
            (0, constants.mode, constants.low, constants.high), (half, )))
        return register

    def _emit(self, code: int, register: Register, sources: tuple[Register, ...],
              parameters: tuple[int, ...]) -> None:
        operations = self._setup if register.shared else self._body
        operations.append(_Operation(code, register.kind, register, sources, parameters))

    def program(self) -> tuple[np.ndarray, int, int]:
        """Operations, how many of them run once, and the int32 elements of scratch they need."""
        places, elements = self._places()
        return self._encoded(self._setup + self._body, places), len(self._setup), elements

    def _length(self, register: Register) -> int:
        length = {FULL: self.block * self.size, ROW: self.block, COLUMN: self.size}[register.kind]
        return -(-length // 16) * 16  # whole cache lines

    def _places(self) -> tuple[dict[Register, int], int]:
        """Offsets of all registers; one whose value nothing reads any more gives its place."""
        last = {}
        for index, operation in enumerate(self._body):
            for register in (*operation.sources, *operation.registers):
                last[register] = index
        places: dict[Register, int] = {}
        free: dict[int, list[int]] = {}
        top = 0

        def place(register: Register) -> None:
            nonlocal top
            length = self._length(register)
            if free.get(length):
                places[register] = free[length].pop()
            else:
                places[register], top = top, top + length

        for operation in self._setup:
            place(operation.out)
        for index, operation in enumerate(self._body):
            if operation.out is not None:
                place(operation.out)
            for register in dict.fromkeys((*operation.sources, *operation.registers)):
                if last[register] == index and not register.shared:
                    free.setdefault(self._length(register), []).append(places[register])
            if operation.out is not None and operation.out not in last:
                free.setdefault(self._length(operation.out), []).append(places[operation.out])
        return places, top

    @staticmethod
    def _encoded(operations: list[_Operation], places: dict[Register, int]) -> np.ndarray:
        rows = np.zeros((len(operations), machine.WIDTH), np.int64)
        for row, operation in zip(rows, operations):
            row[0], row[1] = operation.code, operation.space
            row[2] = 0 if operation.out is None else places[operation.out]
            for index, register in enumerate(operation.sources):
                # In a space of one value per row or column all registers are alike.
                kind = register.kind if operation.space == FULL else FULL
                row[3 + 2 * index:5 + 2 * index] = places[register], kind
            row[machine.PARAMETERS:machine.PARAMETERS + len(operation.parameters)] = \
                operation.parameters
            for index, register in enumerate(operation.registers):
                row[machine.PARAMETERS + index] = places[register]
        return rows


def pair(constants: ScaleConstants) -> tuple[int, int, int, int, int]:
    """A requantization by one pair as parameters of an operation."""
    return (int(constants.multiplier[0]), int(constants.shift[0]), int(constants.half[0]),
            constants.low, constants.high)
