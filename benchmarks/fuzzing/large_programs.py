"""Programs of a few bytes that are right in themselves and ask for anything."""
import random
from math import prod

import numpy as np

from mmdet_bpu.compiler.compile import hbm_bytes
from mmdet_bpu.program.hbm_file import ONLY_NETWORK, CompiledNetwork
from mmdet_bpu.program.memory_plan import Buffer, MemoryPlan, align
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value

RATE = dict(multiplier=[20000], shift=[20])
SIZES = (1, 1, 2, 3, 7, 64, 1000, 1 << 12, 1 << 15, 1 << 16, 1 << 20, 1 << 24, 1 << 30)


class _Writer:
    """Appends operations without asking whether anybody can run them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.values, self.instructions = rng, {}, []
        self.value('x', [rng.choice(SIZES) for _ in range(rng.randint(1, 4))])

    def value(self, name: str, shape, dtype: str = 'si8', data=None) -> str:
        self.values[name] = Value(name, TensorType(tuple(shape), dtype, 0.5), data)
        return name

    def op(self, name: str, inputs: list, shape, dtype: str = 'si8', /, **attrs) -> str:
        result = self.value(f'v{len(self.values)}', shape, dtype)
        self.instructions.append(Instruction(f'bpu.{name}', inputs, [result], attrs, 'large'))
        return result

    def constant(self, array: np.ndarray, dtype: str) -> str:
        return self.value(f'c{len(self.values)}', array.shape, dtype, array)


def large_file(rng: random.Random) -> tuple[bytes, str]:
    """A ``.hbm`` with valid hashes and a plan, and what it asks for in words."""
    writer = _Writer(rng)
    last, kinds = 'x', []
    for _ in range(rng.choice([1, 2, 3, 30])):
        step = rng.choice([_tile, _pad, _matmul, _pool, _conv, _resize, _join, _requantize, _flat])
        kinds.append(step.__name__.strip('_'))
        last = step(writer, last, writer.values[last].type.shape)
    program = Program(writer.values, ['x'], [last], writer.instructions, {})
    plan = _side_by_side(program)
    shapes = {value.type.shape for value in program.values.values()}
    return (hbm_bytes([CompiledNetwork(ONLY_NETWORK, program, plan, {})], 'nash-e'),
            f'{", ".join(kinds[:6])} up to {max(map(prod, shapes))} elements')


def _side_by_side(program: Program) -> MemoryPlan:
    """A plan in which no two values share a byte, however many bytes that takes."""
    buffers, end = {}, 0
    for name, value in program.values.items():
        if value.data is None:
            buffers[name] = Buffer(end, value.type.nbytes, 0, len(program.instructions))
            end += align(max(value.type.nbytes, 0))
    return MemoryPlan(end, end, buffers)


def _tile(writer: _Writer, x: str, shape) -> str:
    multiples = [writer.rng.choice(SIZES) for _ in shape]
    return writer.op('tile', [x], [a * b for a, b in zip(shape, multiples)], multiples=multiples)


def _pad(writer: _Writer, x: str, shape) -> str:
    begin, end = ([writer.rng.choice((0, *SIZES)) for _ in shape] for _ in range(2))
    return writer.op('pad', [x], [a + b + c for a, b, c in zip(begin, shape, end)], begin=begin,
                     end=end, value=0)


def _matmul(writer: _Writer, x: str, shape) -> str:
    if len(shape) < 2:
        return _flat(writer, x, shape)
    dims = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned = writer.op('transpose', [x], [shape[dim] for dim in dims], dims=dims)
    return writer.op('matmul', [x, turned], [*shape[:-1], shape[-2]], **RATE)


def _image(writer: _Writer, x: str, shape) -> tuple[str, tuple]:
    image = (1, shape[0], prod(shape[1:]), 1)
    return writer.op('reshape', [x], image, shape=list(image)), image


def _pool(writer: _Writer, x: str, shape) -> str:
    x, (_, height, width, _) = _image(writer, x, shape)
    kernel = [writer.rng.choice(SIZES) for _ in range(2)]
    pad = [writer.rng.choice((0, *SIZES)) for _ in range(4)]
    sides = [size + pad[axis] + pad[axis + 2] - kernel[axis] + 1
             for axis, size in enumerate((height, width))]
    return writer.op('max_pool', [x], (1, *sides, 1), kernel=kernel, stride=[1, 1], pad=pad,
                     dilation=[1, 1], ceil_mode=False)


def _conv(writer: _Writer, x: str, shape) -> str:
    x, (_, height, width, _) = _image(writer, x, shape)
    stride, pad = ([writer.rng.choice(SIZES) for _ in range(count)] for count in (2, 4))
    sides = [(size + pad[axis] + pad[axis + 2] - 1) // stride[axis] + 1
             for axis, size in enumerate((height, width))]
    weights = [writer.constant(np.ones((1, 1, 1, 1), np.int8), 'si8'),
               writer.constant(np.zeros(1, np.int32), 'si32')]
    return writer.op('conv2d', [x, *weights], (1, *sides, 1), stride=stride, pad=pad,
                     dilation=[1, 1], groups=1, relu=False, **RATE)


def _resize(writer: _Writer, x: str, shape) -> str:
    x, _ = _image(writer, x, shape)
    size = [writer.rng.choice(SIZES) for _ in range(2)]
    return writer.op('resize', [x], (1, *size, 1), size=size, start=[0, 0], step=[1 << 19] * 2,
                     position_bits=20, fraction_bits=11, mode='bilinear')


def _join(writer: _Writer, x: str, shape) -> str:
    count = writer.rng.choice([2, 100])
    return writer.op('concat', [x] * count, (shape[0] * count, *shape[1:]), dim=0)


def _requantize(writer: _Writer, x: str, shape) -> str:
    wide = writer.op('requantize', [x], shape, 'si32', relu=False, **RATE)
    return writer.op('requantize', [wide], shape, relu=False, **RATE)


def _flat(writer: _Writer, x: str, shape) -> str:
    return writer.op('reshape', [x], (prod(shape), ), shape=[prod(shape)])
