"""Small integer programs that the compiler's tests share."""
import numpy as np
import pytest

from mmdet_bpu.program.program import Instruction, Program, TensorType, Value

NUMPY_TYPES = {'int8': 'si8', 'int16': 'si16', 'int32': 'si32', 'bool': 'i1'}


class ProgramMaker:
    """Builds a Program op by op; a method that makes a value returns its name."""

    def __init__(self):
        self.values, self.inputs, self.instructions = {}, [], []
        self.random = np.random.default_rng(7)

    def _value(self, name, shape, dtype, data=None):
        scale = None if dtype == 'i1' else 0.05
        self.values[name] = Value(name, TensorType(tuple(shape), dtype, scale), data)
        return name

    def input(self, name, shape, dtype='si8'):
        self.inputs.append(name)
        return self._value(name, shape, dtype)

    def constant(self, array):
        name = f'c{len(self.values)}'
        return self._value(name, array.shape, NUMPY_TYPES[array.dtype.name], array)

    def integers(self, shape, dtype='int8', low=-20, high=20):
        return self.constant(self.random.integers(low, high, shape).astype(dtype))

    def op(self, op, inputs, result_shape, dtype='si8', site='', **attrs):
        name = self._value(f'v{len(self.values)}', result_shape, dtype)
        self.instructions.append(
            Instruction(f'bpu.{op}', list(inputs), [name], attrs, site or f'site/{op}.{name}'))
        return name

    def conv(self, x, channels, kernel=3, dtype='si8', residual=None, relu=True, **changes):
        batch, height, width, depth = self.values[x].type.shape
        inputs = [x, self.integers((channels, kernel, kernel, depth)),
                  self.integers((channels,), 'int32', -500, 500)]
        attrs = dict(stride=[1, 1], pad=[kernel // 2] * 4, dilation=[1, 1], groups=1,
                     multiplier=np.full(channels, 17000, np.int64),
                     shift=np.full(channels, 20, np.int64), relu=relu)
        if residual:
            inputs.append(residual)
            attrs.update(residual_multiplier=np.array([16384], np.int64),
                         residual_shift=np.array([9], np.int64))
        attrs.update(changes)
        return self.op('conv2d', inputs, (batch, height, width, channels), dtype,
                       f'backbone.{len(self.instructions)}/conv2d.0', **attrs)

    def finish(self, *outputs, metadata=None):
        return Program(self.values, self.inputs, list(outputs), self.instructions, metadata or {})


@pytest.fixture
def maker():
    return ProgramMaker()


@pytest.fixture
def detector(maker):
    """A chain with a shortcut, a reshape and a linear head: every kind of lifetime."""
    image = maker.input('image', (1, 16, 16, 3))
    stem = maker.conv(image, 8)
    inner = maker.conv(stem, 8)
    block = maker.conv(inner, 8, residual=stem)
    wide = maker.conv(block, 16, kernel=1)
    tokens = maker.op('reshape', [wide], (1, 256, 16), shape=[1, 256, 16])
    logits = maker.op(
        'linear', [tokens, maker.integers((10, 16)), maker.integers((10,), 'int32')],
        (1, 256, 10), 'si32', 'head/linear.0', multiplier=np.array([16384], np.int64),
        shift=np.array([14], np.int64), relu=False)
    boxes = maker.op(
        'linear', [tokens, maker.integers((4, 16)), maker.integers((4,), 'int32')],
        (1, 256, 4), 'si16', 'head/linear.1', multiplier=np.array([20000], np.int64),
        shift=np.array([17], np.int64), relu=False)
    return maker.finish(logits, boxes, metadata={'colour order': 'RGB', 'scale': 0.02})
