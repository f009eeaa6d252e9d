"""A chain of instructions as one program of the vector machine, or why not: None."""
import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np
import torch

from mmdet_bpu.kernels.compiled_loops import spread
from mmdet_bpu.kernels.fast.vector_layout import Layout, layout
from mmdet_bpu.kernels.fast.vector_loops import COLUMN, FULL, ROW
from mmdet_bpu.kernels.fast.vector_machine import run_blocks
from mmdet_bpu.kernels.fast.vector_ops import VectorOp
from mmdet_bpu.kernels.fast.vector_program import BLOCK, Assembler, Reduction, Register
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.program.dtypes import ELEMENT_BYTES
from mmdet_bpu.program.numerics import Operand

# Two registers of int32 of the longest row that is taken fit the second-level cache; beyond twice a
# block, a handful of them do not fit the first-level one, and what they do takes half as long again.
MAX_ROW = 1 << 16
LONG_ROW, LONG_ROW_COST = 2 * BLOCK, 1.5
# Kind of a value that is made per segment, which nothing else in the chain reads.
PER_SEGMENT = 3
# Time to begin a row's loop, in that of one element of a vectorized operation.
ROW_START = 16


@dataclass(frozen=True)
class Link:
    """One instruction of a chain.

    Attributes:
        op (VectorOp): What it computes.
        inputs (list[str]): Its operands.
        output (str): Its result.
    """
    op: VectorOp
    inputs: list[str]
    output: str


@dataclass(frozen=True)
class _Read:
    """A source of a link: a tensor that is loaded, or (layout None) a register of the chain."""
    source: Optional[torch.Tensor]
    name: str
    layout: Optional[Layout]

    @property
    def key(self) -> tuple:
        return self.name, id(self.source), self.layout


class Cut:
    """A chain cut in rows of one size.

    Args:
        links (Sequence[Link]): In the order they run.
        values (dict[str, Operand]): Type, shape and constant of every value.
        size (int): Elements of a row.

    Attributes:
        segment (Reduction | None): How runs of rows are reduced, if they are.
        fits (bool): Whether rows of that size cut across none of its operations.
        cost (float): Time per element, in that of a vectorized operation.
    """

    def __init__(self, links: Sequence[Link], values: dict[str, Operand], size: int) -> None:
        self.links, self.values, self.size = links, values, size
        self.elements = max(math.prod(values[name].shape) for link in links
                            for name in (link.output, *link.inputs[:link.op.reduction is not None]))
        self.rows = self.elements // size
        self.segment: Optional[Reduction] = None
        self.kinds: dict[str, int] = {}
        self.reads: list[list[_Read]] = []
        self.cost = 0.
        self.fits = self.elements % size == 0 and all(map(self._add, links))
        loads = {read.key: read for reads in self.reads for read in reads}
        self.cost += sum(read.layout.cost for read in loads.values() if read.layout is not None)
        if size > LONG_ROW:
            self.cost *= LONG_ROW_COST

    def _add(self, link: Link) -> bool:
        shape = self.values[link.output].shape
        kind = read_kind = self._kind(shape)
        reduction = link.op.reduction
        if reduction is not None:
            shape = self.values[link.inputs[0]].shape
            kind, read_kind = ROW, self._kind(shape)
            if reduction.kept * reduction.size != self.size or read_kind != self.full:
                return False
            if not reduction.of_rows:
                if self.segment not in (None, reduction):
                    return False
                kind, self.segment = PER_SEGMENT, reduction
        if kind is None:
            return False
        reads = [self._read(link, source, shape, read_kind) for source in link.op.sources]
        if None in reads:
            return False
        kinds = [self.kinds[read.name] if read.layout is None else read.layout.kind
                 for read in reads]
        if link.op.per_column and (read_kind != FULL or set(kinds[1:]) != {COLUMN}):
            return False
        if link.op.emit is None and reads[0].layout is not None:
            return False
        if read_kind == self.full:
            self.cost += 1
            if self.size > 1 and (reduction is not None or set(kinds) != {FULL}):
                self.cost += ROW_START / self.size
        self.kinds[link.output] = kind
        self.reads.append(reads)
        return True

    @property
    def full(self) -> int:
        """Kind of a register with a value per element."""
        return FULL if self.size > 1 else ROW

    def _kind(self, shape: Sequence[int]) -> Optional[int]:
        elements = math.prod(shape)
        if elements == self.elements:
            return self.full
        return ROW if elements == self.rows else None

    def _read(self, link: Link, source, shape: Sequence[int], kind: int) -> Optional[_Read]:
        """How a source is read by an operation on a shape."""
        size = self.size if kind == FULL else 1
        if not isinstance(source, int):
            found = layout(shape, source.shape, size)
            return found and _Read(source, '', found)
        name = link.inputs[source]
        operand = self.values[name]
        found = layout(shape, operand.shape, size)
        if found is None or name not in self.kinds:
            return found and _Read(operand.constant, name, found)
        made = self.kinds[name]
        if made == ROW and (found.kind == ROW and found.dense):
            return _Read(None, name, None)
        same = math.prod(operand.shape) == math.prod(shape)
        return _Read(None, name, None) if made == kind and same else None


def best_cut(links: Sequence[Link], values: dict[str, Operand]) -> Optional[Cut]:
    """The cheapest cut of a chain; None if there is none."""
    shapes = [values[link.output].shape for link in links]
    if any(0 in shape for shape in shapes):
        return None
    reductions = [link.op.reduction for link in links if link.op.reduction is not None]
    sizes = {reduction.kept * reduction.size for reduction in reductions}
    if len(sizes) > 1:
        return None
    if not reductions:
        sizes = {1} | {math.prod(shape[dim:]) for shape in shapes for dim in range(len(shape))}
    cuts = [Cut(links, values, size) for size in sorted(sizes) if size <= MAX_ROW]
    return min((cut for cut in cuts if cut.fits), key=lambda cut: cut.cost, default=None)


def compile_chain(cut: Cut, inputs: Sequence[str], outputs: Sequence[str]) -> Into:
    """The computation of a chain.

    Args:
        cut (Cut): How it is cut.
        inputs (Sequence[str]): Values that it is given.
        outputs (Sequence[str]): Values that it writes.
    """
    assembler = Assembler(cut.rows, cut.size, cut.segment)
    numbers = {name: assembler.argument() for name in inputs}
    stores = {name: assembler.argument() for name in outputs}
    repeats: list[tuple[int, int, tuple]] = []
    loaded: dict[tuple, Register] = {}
    registers: dict[str, Register] = {}

    def source(read: _Read) -> Register:
        if read.layout is None:
            return registers[read.name]
        if read.key not in loaded:
            if read.source is not None:
                tensor = _repeated(read.source.contiguous(), read.layout)
                number, nbytes = assembler.constant(tensor), tensor.element_size()
            else:
                number, nbytes = numbers[read.name], ELEMENT_BYTES[cut.values[read.name].dtype]
                if read.layout.repeat is not None:
                    repeats.append((inputs.index(read.name), assembler.argument(), read.layout))
                    number = repeats[-1][1]
            loaded[read.key] = assembler.load(number, nbytes, read.layout)
        return loaded[read.key]

    for link, reads in zip(cut.links, cut.reads):
        sources = [source(read) for read in reads]
        kind = cut.kinds[link.output]
        registers[link.output] = (sources[0] if link.op.emit is None else
                                  link.op.emit(assembler, kind, sources))
        if link.output in stores:
            nbytes = ELEMENT_BYTES[cut.values[link.output].dtype]
            assembler.store(stores[link.output], nbytes, registers[link.output])
    program, numbers_of_cut, scratch = assembler.program()
    fixed = assembler.tensors
    template = np.array([0 if tensor is None else tensor.data_ptr() for tensor in fixed], np.int64)
    rows = cut.segment.rows if cut.segment else 1  # that stay together

    def run(given: Tensors, results: Tensors) -> None:
        addresses = template.copy()
        addresses[:len(given) + len(results)] = [
            tensor.data_ptr() for tensor in (*given, *results)]
        kept = [(number, _repeated(given[index], found)) for index, number, found in repeats]
        for number, tensor in kept:
            addresses[number] = tensor.data_ptr()

        def loop(first: int, end: int) -> None:
            run_blocks(program, numbers_of_cut, addresses, np.empty(scratch, np.int32),
                       first * rows, end * rows)

        spread(loop, cut.rows // rows, rows * cut.size * len(program))

    run.constants = fixed  # their memory is read by address
    return run


def _repeated(tensor: torch.Tensor, found: Layout) -> torch.Tensor:
    if found.repeat is None:
        return tensor
    own, whole = found.repeat
    return tensor.reshape(own).expand(whole).contiguous()
