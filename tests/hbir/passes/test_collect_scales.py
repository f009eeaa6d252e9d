"""Which values hold integers, and at which scale."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.passes.conversion import IntType
from mmdet_bpu.hbir.types import tensor_type

X = tensor_type((2, 3), 'f32')


@pytest.fixture
def builder():
    return OpBuilder([('x', X)])


def test_a_fake_quantizer_gives_width_and_scale(builder, up_to):
    y = builder.fake_quant(builder.inputs[0], 16, 0.25)
    conversion = up_to(builder.finish([('y', y)]), 'collect_scales')
    assert conversion.integers == {y: IntType('si16', 0.25)}
    assert conversion.rounded == {builder.inputs[0]: y.owner}


def test_movement_keeps_the_integers(builder, up_to):
    y = builder.fake_quant(builder.inputs[0], 8, 0.5)
    z = builder.op('hbir.reshape', [y], dict(shape=[6]), tensor_type((6, ), 'f32'))
    conversion = up_to(builder.finish([('z', z)]), 'collect_scales')
    assert conversion.integers[z] == IntType('si8', 0.5)


def test_a_positive_factor_changes_the_scale_alone(builder, up_to, largest_lsb):
    y = builder.fake_quant(builder.inputs[0], 8, 0.5)
    z = builder.op('hbir.mul', [y, builder.constant(np.array([0.25], np.float32))], {}, X)
    module = builder.finish([('z', z)])
    assert up_to(module, 'collect_scales').integers[z] == IntType('si8', 0.125)
    assert largest_lsb(module) == 0


@pytest.mark.parametrize('factor', [-0.5, 0.0])
def test_another_factor_does_not(builder, up_to, factor):
    y = builder.fake_quant(builder.inputs[0], 8, 0.5)
    z = builder.op('hbir.mul', [y, builder.constant(np.array([factor], np.float32))], {}, X)
    assert z not in up_to(builder.finish([('z', z)]), 'collect_scales').integers


def test_constants_are_rounded_once(builder, up_to):
    data = np.array([[1.0, 2.5], [-9, 100]], np.float32)
    w = builder.fake_quant(builder.constant(data), 8, np.array([1.0, 0.1]), axis=0)
    conversion = up_to(builder.finish([('y', builder.inputs[0])]), 'collect_scales')
    constant = conversion.constants[w]
    np.testing.assert_array_equal(constant.integers(), [[1, 2], [-90, 127]])
    assert constant.integers().dtype == np.int8


def test_a_constant_of_two_scales_has_no_single_type(builder, up_to):
    data = np.ones((2, 3), np.float32)
    w = builder.fake_quant(builder.constant(data), 8, np.array([1.0, 0.1]), axis=0)
    y = builder.fake_quant(builder.inputs[0], 8, 0.5)
    z = builder.fake_quant(builder.op('hbir.mul', [y, w], {}, X, site='here'), 8, 1.0)
    with pytest.raises((BpuError, TypeError)):
        up_to(builder.finish([('z', z)]), 'emit')
