"""Products take in a residual and a relu, and keep the accumulator where nothing rounds it."""
import numpy as np
import pytest

from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, operations
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.types import tensor_type, value_type

X = tensor_type((1, 5, 6, 4), 'f32')


class Layer:
    """A 3 x 3 convolution of 4 channels; ``finish`` rounds what was built on it."""

    def __init__(self, bits=8):
        self.b = OpBuilder([('x', X)])
        self.x = self.b.fake_quant(self.b.inputs[0], 8, 0.05)
        self.bits = bits

    def conv(self, x=None):
        rng = np.random.default_rng(1)
        w = rng.normal(size=(4, 3, 3, 4)).astype(np.float32)
        scale = np.abs(w).max((1, 2, 3)) / 127
        w = self.b.fake_quant(self.b.constant(w), 8, scale, axis=0)
        bias = self.b.constant(rng.normal(size=4).astype(np.float32))
        attrs = dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groupNum=1)
        return self.b.op('hbir.conv2d', [self.x if x is None else x, w, bias], attrs, X,
                         site='block/conv2d.0')

    def op(self, name, *operands):
        return self.b.op(name, list(operands), {}, X, site=f'block/{name}')

    def finish(self, value, scale=0.2):
        rounded = self.b.fake_quant(value, self.bits, scale, site='block/out')
        return self.b.finish([('y', rounded)])


def kinds(module):
    return [op.name for op in operations(convert(module)[0]) if op.name != 'bpu.constant']


def test_a_convolution_alone_is_one_product(largest_lsb):
    layer = Layer()
    module = layer.finish(layer.conv())
    assert kinds(module) == ['bpu.conv2d']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('product_first', [True, False])
@pytest.mark.parametrize('relu', [True, False])
def test_residual_and_relu_are_taken_in(largest_lsb, bits, product_first, relu):
    layer = Layer(bits)
    conv = layer.conv()
    operands = (conv, layer.x) if product_first else (layer.x, conv)
    value = layer.op('hbir.add', *operands)
    value = layer.op('hbir.relu', value) if relu else value
    module = layer.finish(value, 0.2 if bits == 8 else 0.001)
    assert kinds(module) == ['bpu.conv2d']
    conv = next(op for op in operations(convert(module)[0]) if op.name == 'bpu.conv2d')
    assert attrs_of(conv)['relu'] is relu and len(conv.operands) == 4
    assert largest_lsb(module) <= 1


def test_of_two_convolutions_one_is_rounded_first(largest_lsb):
    layer = Layer()
    first = layer.b.fake_quant(layer.conv(), 8, 0.2)
    module = layer.finish(layer.op('hbir.add', layer.conv(), first))
    assert kinds(module) == ['bpu.conv2d', 'bpu.conv2d']
    assert largest_lsb(module) <= 1


def test_a_relu_of_integers_stays_an_operation(largest_lsb):
    layer = Layer()
    relu = layer.op('hbir.relu', layer.b.fake_quant(layer.conv(), 8, 0.2))
    module = layer.b.finish([('y', relu)])
    assert kinds(module) == ['bpu.conv2d', 'bpu.relu']
    assert largest_lsb(module) <= 1


def test_a_product_that_nothing_rounds_keeps_its_accumulator():
    layer = Layer()
    integer = convert(layer.b.finish([('y', layer.conv())]))[0]
    conv = next(op for op in operations(integer) if op.name == 'bpu.conv2d')
    assert value_type(conv.results[0]).dtype == 'si32'


@pytest.mark.parametrize('bits', [8, 16])
def test_an_addition_of_integers_takes_its_relu_in(largest_lsb, bits):
    layer = Layer(bits)
    wide = layer.b.fake_quant(layer.conv(), 16, 0.001)
    module = layer.finish(layer.op('hbir.relu', layer.op('hbir.add', layer.x, wide)),
                          0.2 if bits == 8 else 0.001)
    assert kinds(module) == ['bpu.conv2d', 'bpu.requantize', 'bpu.add']
    add = next(op for op in operations(convert(module)[0]) if op.name == 'bpu.add')
    assert attrs_of(add)['relu'] is True
    assert largest_lsb(module) <= 1


def test_an_addition_that_others_read_before_its_relu_is_rounded_once_for_both(largest_lsb):
    layer = Layer()
    total = layer.b.fake_quant(layer.op('hbir.add', layer.x, layer.x), 8, 0.2)
    module = layer.b.finish([('y', layer.op('hbir.relu', total)), ('z', total)])
    assert kinds(module) == ['bpu.add', 'bpu.relu']
    add = next(op for op in operations(convert(module)[0]) if op.name == 'bpu.add')
    assert not attrs_of(add).get('relu')
    assert largest_lsb(module) <= 1
