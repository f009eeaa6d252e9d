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


SETUP, BODY, CLOSING = range(3)
"""When operations run: once, per block, per segment."""


@dataclass(frozen=True)
class Reduction:
    """A reduction of dimensions that lie together, and of the last ones: (A, B, C, D) to (A, C).

    Attributes:
        rows (int): B; the rows of a segment.
        kept (int): C.
        size (int): D.
    """
    rows: int
    kept: int
    size: int

    @property
    def of_rows(self) -> bool:
        """Whether each row becomes one element, of C x D = D."""
        return self.rows == 1 and self.kept == 1


@dataclass(frozen=True, eq=False)
class Register:
    """A virtual register.

    Attributes:
        kind (int): FULL, ROW or COLUMN; of a value that is made per segment, of its C rows.
        section (int): When it is computed. All rows share what SETUP gives.
        lasting (bool): It holds something from block to block.
    """
    kind: int
    section: int = BODY
    lasting: bool = False


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
        segment (Reduction | None): How segments are reduced, if they are.

    Attributes:
        tensors (list[torch.Tensor | None]): What the numbers of tensors stand for; None for one
            that is known when the program runs.
        block (int): Rows of a block.
    """
    rows: int
    size: int
    segment: Optional[Reduction] = None
    tensors: list[Optional[torch.Tensor]] = field(default_factory=list)
    _sections: tuple[list, list, list] = field(default_factory=lambda: ([], [], []))

    @property
    def segment_rows(self) -> int:
        """Rows of a segment: all, where none is reduced."""
        return self.segment.rows if self.segment else self.rows

    @property
    def block(self) -> int:
        return min(max(1, BLOCK // self.size), self.segment_rows)

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
        register = Register(layout.kind, SETUP if layout.shared else BODY)
        self._emit(machine.LOAD, register, (), (tensor, nbytes, len(layout.outer), *dims))
        return register

    def store(self, tensor: int, nbytes: int, source: Register) -> None:
        """Write a register, row after row."""
        self._sections[source.section].append(_Operation(
            machine.STORE, source.kind, None, (source, ), (tensor, nbytes)))

    def unary(self, code: int, source: Register, *parameters: int) -> Register:
        """An operation on each element."""
        register = Register(source.kind, source.section)
        self._emit(code, register, (source, ), parameters)
        return register

    def reduce(self, code: int, column_code: int, source: Register,
               reduction: Reduction) -> Register:
        """Join the elements of rows, or the rows of segments and then the elements of theirs."""
        if reduction.of_rows:
            register = Register(ROW)
            self._add(_Operation(code, FULL, register, (source, ), ()))
            return register
        columns, register = Register(COLUMN, lasting=True), Register(ROW, CLOSING)
        self._add(_Operation(column_code, FULL, columns, (source, ), ()))
        self._add(_Operation(code, FULL, register, (columns, ), ()))
        return register

    def elementwise(self, code: int, kind: int, sources: Sequence[Register],
                    *parameters: int) -> Register:
        """An operation on two or three values: a FULL result, or one per row (ROW)."""
        first = sources[0]
        if kind == FULL and first.kind == ROW and code in COMMUTE:
            sources = sources[::-1]
        elif kind == FULL and first.kind == ROW and code != machine.SELECT:
            spread = Register(FULL)
            self._add(_Operation(machine.SPREAD_ROWS, FULL, spread, (first, ), ()))
            sources = (spread, *sources[1:])
        register = Register(kind)
        self._add(_Operation(code, kind, register, tuple(sources), parameters))
        return register

    def scale(self, source: Register, constants: ScaleConstants) -> Register:
        """Requantize by one pair."""
        return self.unary(SCALES.get(constants.mode, machine.SCALE_ANY), source, *pair(constants),
                          constants.mode)

    def scale_columns(self, source: Register, constants: ScaleConstants, multiplier: Register,
                      shift: Register, half: Register) -> Register:
        """Requantize by a pair per column."""
        register = Register(FULL)
        self._add(_Operation(
            machine.SCALE_COLUMNS, FULL, register, (source, multiplier, shift),
            (0, constants.mode, constants.low, constants.high), (half, )))
        return register

    def _emit(self, code: int, register: Register, sources: tuple[Register, ...],
              parameters: tuple[int, ...]) -> None:
        self._add(_Operation(code, register.kind, register, sources, parameters))

    def _add(self, operation: _Operation) -> None:
        self._sections[operation.out.section].append(operation)

    def program(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Operations and how they are cut, see run_blocks; int32 elements of scratch they need."""
        operations = [each for section in self._sections for each in section]
        places, elements = self._places(operations)
        kept = self.segment or Reduction(0, 0, 0)
        cut = np.array([*map(len, self._sections[:CLOSING]), self.size, self.block,
                        self.segment_rows, kept.kept, kept.size], np.int64)
        return _encoded(operations, places), cut, elements

    def _length(self, register: Register) -> int:
        rows, size = self.block, self.size
        if register.section == CLOSING:
            rows, size = self.segment.kept, self.segment.size
        length = {FULL: rows * size, ROW: rows, COLUMN: size}[register.kind]
        return -(-length // 16) * 16  # whole cache lines

    def _places(self, operations: list[_Operation]) -> tuple[dict[Register, int], int]:
        """Offsets of all registers; one whose value nothing reads any more gives its place."""
        last = {register: index for index, operation in enumerate(operations)
                for register in (*operation.sources, *operation.registers)}
        places: dict[Register, int] = {}
        free: dict[int, list[int]] = {}
        top = 0
        for register in (operation.out for operation in operations):
            if register is not None and (register.lasting or register.section == SETUP):
                places[register], top = top, top + self._length(register)
        for index, operation in enumerate(operations):
            out = operation.out
            if out is not None and out not in places:
                length = self._length(out)
                if free.get(length):
                    places[out] = free[length].pop()
                else:
                    places[out], top = top, top + length
            ending = {register for register in (*operation.sources, *operation.registers)
                      if last[register] == index}
            for register in ending | ({out} - {None} - last.keys()):
                if not register.lasting and register.section != SETUP:
                    free.setdefault(self._length(register), []).append(places[register])
        return places, top


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
