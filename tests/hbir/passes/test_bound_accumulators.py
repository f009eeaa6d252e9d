"""No accumulator can leave int32: weight scales grow until that is certain."""
import sys

import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder, constant_array, operations
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.types import tensor_type, value_type

INT32_MAX = 2**31 - 1


def linear(width=2304, bits=16, bias=None, weight=None, residual=False, rounded=True):
    """Two channels: one with all weights at their largest, one with small ones."""
    b = OpBuilder([('x', tensor_type((3, width), 'f32'))])
    x = b.fake_quant(b.inputs[0], bits, 1 / 2**(bits - 1))
    if weight is None:
        weight = np.ones((2, width), np.float32)
        weight[1] = np.linspace(-1, 1, width)**15
    w = b.fake_quant(b.constant(weight), 8, np.full(2, 1 / 127), axis=0)
    bias = b.constant(np.zeros(2, np.float32) if bias is None else np.float32(bias))
    shape = tensor_type((3, 2), 'f32')
    y = b.op('hbir.linear', [x, w, bias], {}, shape, site='ffn/linear.0')
    if residual:
        part = b.op('hbir.slice', [x], dict(begin=[0, 0], end=[3, 2], step=[1, 1]), shape)
        y = b.op('hbir.add', [y, part], {}, shape)
    y = b.fake_quant(y, 8, width / 100) if rounded else y
    return b.finish([('y', y)])


def integers(module):
    """Weight and bias, as int64."""
    op = next(op for op in operations(convert(module)[0]) if op.name == 'bpu.linear')
    return tuple(constant_array(v).astype(np.int64) for v in op.operands[1:3])


def notes(module):
    return [n for n in convert(module)[1] if n['rule'] == 'bound_accumulators']


@pytest.mark.parametrize('residual', [False, True])
def test_a_channel_that_overflows_is_enlarged_and_noted(residual, largest_lsb):
    module = linear(residual=residual)
    weight, bias = integers(module)
    bounds = np.abs(weight).sum(1) * 2**15 + np.abs(bias)
    assert (bounds <= INT32_MAX).all()
    assert bounds[0] > 0.9 * INT32_MAX  # no coarser than it must be
    note, = notes(module)
    assert note['channels'] == [0] and note['site'] == 'ffn/linear.0'
    assert 4 < note['largest_factor'] < 5  # 2304 * 127 * 2**15 / 2**31 = 4.46
    assert largest_lsb(module) <= 2


@pytest.mark.parametrize('width, bits', [(2304, 8), (512, 16)])
def test_channels_that_fit_are_left_alone(width, bits, largest_lsb):
    module = linear(width, bits)
    assert integers(module)[0].max() == 127 and not notes(module)
    assert largest_lsb(module) <= 1


def test_a_bias_counts():
    module = linear(64, 16, bias=[-3e2, 0.0])  # 3e2 / (2**-15 / 127) = 1.25e9, weights 2.7e8
    assert not notes(module)
    module = linear(64, 16, bias=[-3e3, 0.0])
    assert notes(module)[0]['channels'] == [0]
    weight, bias = integers(module)
    assert (np.abs(weight).sum(1) * 2**15 + np.abs(bias) <= INT32_MAX).all()


def test_a_bias_that_is_not_finite_is_refused():
    with pytest.raises(BpuError, match='ffn/linear.0: expected finite biases, found inf in '
                                       'channel 1'):
        convert(linear(64, 16, bias=[0, np.inf]))


def test_a_channel_that_cannot_be_bounded_is_refused(monkeypatch):
    # The package exports a function of the module's name.
    monkeypatch.setattr(sys.modules['mmdet_bpu.hbir.passes.bound_accumulators'], '_ATTEMPTS', 1)
    with pytest.raises(BpuError, match='ffn/linear.0: no weight scale keeps channel 0 within '
                                       'int32; give its input a larger scale'):
        convert(linear())


def test_an_accumulator_output_has_the_scale_of_its_coarsest_channel():
    weight = np.stack([np.ones(64), np.ones(64) / 4]).astype(np.float32)
    integer = convert(linear(64, 8, weight=weight, rounded=False))[0]
    op = next(op for op in operations(integer) if op.name == 'bpu.linear')
    shape, dtype, scale = value_type(op.results[0])
    assert dtype == 'si32'
    finest = 1 / 127 / 128
    guard = np.log2(finest / scale)
    assert guard == pytest.approx(8, abs=1e-6)
    largest = 64 * 1.0 / scale
    assert largest < INT32_MAX
