"""Integer programs of element-wise instructions and reductions, and the two kernel sets on them."""
import math

import numpy as np
import torch
from hypothesis import strategies as st

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.table_fit import build_table
from tests.integer_programs import ProgramMaker

SHAPES = ([1, 7, 4, 6], [40, 3, 8], [2, 5, 1, 16], [300], [1, 1, 70], [9, 33])
PAIRS = st.tuples(st.sampled_from([2**14, 2**14 + 1, 24576, 2**15 - 1]), st.integers(12, 31))
TABLES = {(source, target): build_table(lambda x: np.tanh(x * 3), source, 2**-7 if source == 'si8'
                                        else 2**-13, target, 2**-6 if target == 'si8' else 2**-14)
          for source in ('si8', 'si16') for target in ('si8', 'si16')}


def extremes(shape, dtype: str, random: np.random.Generator) -> torch.Tensor:
    """Integers of a type, a third of them at its ends or around 0."""
    low, high = INTEGER_RANGES[dtype]
    values = random.integers(low, high, shape, np.int64, endpoint=True)
    ends = random.choice([low, low + 1, -1 if low else 0, 0, 1, high], shape)
    values = np.where(random.random(shape) < 1 / 3, ends, values)
    return torch.from_numpy(np.asarray(values)).to(TORCH_DTYPES[dtype])


class ChainMaker(ProgramMaker):
    """A :class:`ProgramMaker` that draws operations on the values that it has."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.names = draw, []

    def type_of(self, name):
        return self.values[name].type

    def start(self, shape, dtype):
        self.names.append(self.input(f'x{len(self.inputs)}', shape, dtype))

    def pick(self, *dtypes):
        """A value of these types."""
        names = [name for name in self.names if self.type_of(name).dtype in dtypes]
        return self.draw(st.sampled_from(names)) if names else None

    def partner(self, name):
        """Another value or constant that broadcasts with a value, of its type."""
        shape, dtype = self.type_of(name).shape, self.type_of(name).dtype
        fitting = [other for other in self.names if self.type_of(other).dtype == dtype
                   and other not in self.constants() and self.broadcasts(other, name)]
        if self.draw(st.booleans()):
            return self.draw(st.sampled_from(fitting))
        kept = [size if self.draw(st.booleans()) else 1 for size in shape]
        return self.constant(extremes(kept, dtype, self.random).numpy())

    def constants(self):
        return {name for name, value in self.values.items() if value.data is not None}

    def broadcasts(self, *names):
        try:
            torch.broadcast_shapes(*(self.type_of(name).shape for name in names))
        except RuntimeError:
            return False
        return True

    def joined(self, *names):
        return tuple(torch.broadcast_shapes(*(self.type_of(name).shape for name in names)))

    def add(self, op):
        """One operation of a kind, on values that are there; none if no value has its type."""
        name = self.pick(*{'add': ('si8', 'si16'), 'sub': ('si8', 'si16'), 'mul': ('si8', 'si16'),
                           'table': ('si8', 'si16'), 'reduce_sum': ('si8', 'si16')}.get(
                               op, ('si8', 'si16', 'si32')))
        if name is not None:
            self.names.append(getattr(self, f'add_{op}')(name, op))

    def add_sum(self, name, op):
        other = self.partner(name)
        bits = self.draw(st.integers(0, 8))
        attrs = {}
        for side, operand in (('lhs', name), ('rhs', other)):
            wide = self.type_of(operand).dtype == 'si16'
            attrs[f'{side}_multiplier'] = [self.draw(PAIRS)[0]]
            attrs[f'{side}_shift'] = [self.draw(st.integers(0 if wide else -8, 20))]
        dtype = self.draw(st.sampled_from(['si8', 'si16', 'si32']))
        return self.op(op, [name, other], self.joined(name, other), dtype, guard_bits=bits,
                       relu=self.draw(st.booleans()), **attrs)

    add_add = add_sub = add_sum

    def add_mul(self, name, op):
        other = self.draw(st.sampled_from([name, self.partner(name)]))
        multiplier, shift = self.draw(PAIRS)
        return self.op(op, [name, other], self.joined(name, other),
                       self.draw(st.sampled_from(['si8', 'si16'])), multiplier=[multiplier],
                       shift=[shift])

    def add_requantize(self, name, op):
        shape = self.type_of(name).shape
        pairs = [self.draw(PAIRS) for _ in range(self.draw(st.sampled_from([1, shape[-1]])))]
        move = self.draw(st.sampled_from([0, 3, 20]))
        return self.op(op, [name], shape, self.draw(st.sampled_from(['si8', 'si16', 'si32'])),
                       multiplier=[m for m, _ in pairs], shift=[s - move for _, s in pairs],
                       relu=self.draw(st.booleans()))

    def add_relu(self, name, op):
        return self.op(op, [name], self.type_of(name).shape, self.type_of(name).dtype)

    def add_max(self, name, op):
        other = self.partner(name)
        return self.op(op, [name, other], self.joined(name, other), self.type_of(name).dtype)

    add_min = add_max

    def add_table(self, name, op):
        target = self.draw(st.sampled_from(['si8', 'si16']))
        return self.op(op, [name], self.type_of(name).shape, target,
                       **TABLES[self.type_of(name).dtype, target].attrs)

    def add_where(self, name, op):
        sign = self.draw(st.sampled_from(['positive', 'not_negative']))
        other = self.partner(name)
        mask = self.op(sign, [other], self.type_of(other).shape, 'i1')
        shape, dtype = self.joined(name, mask), self.type_of(name).dtype
        if self.draw(st.booleans()):
            return self.op(op, [mask, name], shape, dtype, fill=INTEGER_RANGES[dtype][0])
        third = self.partner(name)
        return self.op(op, [mask, name, third], self.joined(name, mask, third), dtype)

    def add_reshape(self, name, op):
        shape = self.type_of(name).shape
        flat = self.draw(st.integers(0, len(shape) - 1))
        new = (*shape[:flat], math.prod(shape[flat:]))
        return self.op(op, [name], new, self.type_of(name).dtype, shape=list(new))

    def add_reduction(self, name, op):
        shape = self.type_of(name).shape
        first = self.draw(st.integers(0, len(shape) - 1))
        dims = [dim for dim in range(first, len(shape)) if dim == first or self.draw(st.booleans())]
        result = tuple(1 if dim in dims else size for dim, size in enumerate(shape))
        if op != 'reduce_sum':
            return self.op(op, [name], result, self.type_of(name).dtype, dims=dims)
        multiplier, shift = self.draw(PAIRS)
        return self.op(op, [name], result, self.draw(st.sampled_from(['si8', 'si16'])),
                       multiplier=[multiplier], shift=[shift], dims=dims)

    add_reduce_sum = add_reduce_max = add_reduce_min = add_reduction


OPS = ('add', 'sub', 'mul', 'requantize', 'relu', 'max', 'min', 'table', 'where', 'reshape',
       'reduce_sum', 'reduce_max', 'reduce_min')


@st.composite
def chain_programs(draw):
    """Programs of up to 12 instructions; some of their values are outputs."""
    maker = ChainMaker(draw)
    shape = draw(st.sampled_from(SHAPES))
    maker.start(shape, draw(st.sampled_from(['si8', 'si16', 'si32'])))
    maker.start(shape, draw(st.sampled_from(['si8', 'si16'])))
    for op in draw(st.lists(st.sampled_from(OPS), min_size=2, max_size=12)):
        maker.add(op)
    made = [name for each in maker.instructions for name in each.outputs]
    kept = [name for name in made[:-1] if draw(st.integers(0, 4)) == 0]
    return maker.finish(*kept, made[-1])


def run_both(program, seed: int = 0) -> dict[bool, Interpreter]:
    """Compare every value that fast stores with the reference, fused and alone.

    Returns:
        dict[bool, Interpreter]: The fast interpreters, by whether they fuse.
    """
    random = np.random.default_rng(seed)
    inputs = {name: extremes(program.values[name].type.shape, program.values[name].type.dtype,
                             random) for name in program.inputs}
    expected = {}
    Interpreter(program).run(inputs, lambda step, _, results: expected.update(
        {name: result.clone() for name, result in zip(step.outputs, results)}))
    found = {}
    for fuse in (True, False):
        found[fuse] = Interpreter(program, kernels='fast', fuse=fuse)
        stored = {}
        found[fuse].run(inputs, lambda step, _, results: stored.update(
            {name: result.clone() for name, result in zip(step.outputs, results)}))
        for name, result in stored.items():
            assert result.dtype == expected[name].dtype and torch.equal(result, expected[name]), \
                f'{name}, fuse={fuse}'
    assert stored.keys() == expected.keys()
    return found
