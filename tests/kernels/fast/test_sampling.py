"""grid_sample, resize and the pools of the fast set equal the reference's, and refuse the same."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS, kernel_set
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.sampling_grid import axis_sampling

CHANNELS = [1, 7, 16, 19, 40]


def integers(data, shape, dtype='si8'):
    """Many at the ends of their type."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    low, high = INTEGER_RANGES[dtype]
    numbers = np.where(rng.random(shape) < 0.3, rng.choice([low, high, 0], shape),
                       rng.integers(low, high + 1, shape))
    return torch.from_numpy(numbers).to(TORCH_DTYPES[dtype])


def assert_equal(op, inputs, attrs, dtype='si8'):
    """The fast set has a kernel for it, and its results are the reference's."""
    expected = KERNELS[op](inputs, {**attrs, 'out_dtypes': [dtype]})
    attrs = {**attrs, 'out_dtypes': [dtype], 'out_shapes': [tuple(t.shape) for t in expected]}
    run = kernel_set('fast').plan(op, [Operand.of(tensor) for tensor in inputs], attrs)
    assert run is not None
    found = run(inputs)
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    assert all(map(torch.equal, found, expected))


def sampling_attrs(height, width, scale, bits, padding):
    x, y = axis_sampling(width, scale, bits), axis_sampling(height, scale, bits)
    return dict(x_multiplier=[x.multiplier], x_shift=[x.shift], x_offset=x.offset,
                y_multiplier=[y.multiplier], y_shift=[y.shift], y_offset=y.offset,
                fraction_bits=bits, padding=padding)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_grid_sample(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    channels = data.draw(st.sampled_from(CHANNELS))
    scale = data.draw(st.sampled_from([1 / 2**15, 1.3 / 2**15, 4 / 2**15, 1000.0, 1e30]))
    bits = data.draw(st.sampled_from([1, 4, 8, 9, 11]))
    attrs = sampling_attrs(height, width, scale, bits,
                           data.draw(st.sampled_from(['zeros', 'border'])))
    assert_equal('bpu.grid_sample', [integers(data, (2, height, width, channels)),
                                     integers(data, (2, 3, 5, 2), 'si16')], attrs)


@pytest.mark.parametrize('value', [-128, 127])
@pytest.mark.parametrize('bits', [8, 11])
def test_the_largest_weighted_sum(value, bits):
    grid = torch.arange(-2**14, 2**14, 37).to(torch.int16)
    grid = torch.stack((grid, grid.flip(0)), -1).view(1, -1, 1, 2)
    attrs = sampling_attrs(6, 7, 1 / 2**15, bits, 'border')
    assert_equal('bpu.grid_sample', [torch.full((1, 6, 7, 16), value, dtype=torch.int8), grid],
                 attrs)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_resize(data):
    channels = data.draw(st.sampled_from(CHANNELS))
    shape = (2, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)), channels)
    attrs = dict(mode='bilinear', position_bits=20,
                 fraction_bits=data.draw(st.sampled_from([1, 8, 11])),
                 size=[data.draw(st.integers(1, 9)) for _ in range(2)],
                 start=[data.draw(st.integers(-2**21, 2**21)) for _ in range(2)],
                 step=[data.draw(st.integers(0, 2**21)) for _ in range(2)])
    assert_equal('bpu.resize', [integers(data, shape)], attrs)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_max_pool(data):
    dtype = data.draw(st.sampled_from(['si8', 'si16']))
    dilation, kernel = ([data.draw(st.integers(1, 3)) for _ in range(2)] for _ in range(2))
    shape = (2, *(data.draw(st.integers(7, 9)) for _ in range(2)), data.draw(
        st.sampled_from([16, 19, 40])))
    pad = [data.draw(st.integers(0, kernel[axis % 2] // 2 * dilation[axis % 2]))
           for axis in range(4)]
    attrs = dict(kernel=kernel, dilation=dilation, pad=pad,
                 stride=[data.draw(st.integers(1, 3)) for _ in range(2)],
                 ceil_mode=data.draw(st.booleans()))
    assert_equal('bpu.max_pool', [integers(data, shape, dtype)], attrs, dtype)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_avg_pool(data):
    shape = (2, *(data.draw(st.integers(3, 8)) for _ in range(2)), data.draw(
        st.sampled_from([16, 19, 40])))
    attrs = dict(kernel=[data.draw(st.integers(1, 3)) for _ in range(2)],
                 stride=[data.draw(st.integers(1, 3)) for _ in range(2)],
                 multiplier=[data.draw(st.sampled_from([0, 2**14, 20001, 2**15 - 1]))],
                 shift=[data.draw(st.sampled_from([1, 14, 17, 30, 60]))])
    assert_equal('bpu.avg_pool', [integers(data, shape)], attrs)


@pytest.mark.parametrize('channels, dtype, out_dtype, shift, kernel', [
    (15, 'si8', 'si8', 17, 2), (16, 'si16', 'si16', 17, 2), (16, 'si8', 'si16', 17, 2),
    (16, 'si8', 'si8', 0, 2), (16, 'si8', 'si8', 17, 32)])
def test_an_avg_pool_that_leaves_int32_is_left_to_the_reference(channels, dtype, out_dtype, shift,
                                                                kernel):
    attrs = dict(kernel=[kernel] * 2, stride=[1, 1], multiplier=[20000], shift=[shift],
                 out_dtypes=[out_dtype], out_shapes=[(1, 1, 1, channels)])
    operand = Operand(dtype, (1, kernel, kernel, channels))
    assert kernel_set('fast').plan('bpu.avg_pool', [operand], attrs) is None


@pytest.mark.parametrize('op, dtypes, change, message', [
    ('grid_sample', ('si16', 'si16'), {}, 'si8 values and an si16 grid, found si16'),
    ('grid_sample', ('si8', 'si16'), {'fraction_bits': 12}, 'must be in .1, 11.*found 12'),
    ('resize', ('si16', ), {}, 'takes si8 values, found si16'),
    ('avg_pool', ('si32', ), {}, 'takes si8 and si16 values, found si32')])
def test_what_an_op_does_not_take_is_refused_as_by_the_reference(op, dtypes, change, message):
    attrs = {**sampling_attrs(4, 4, 1 / 2**15, 8, 'zeros'), 'kernel': [2, 2], 'stride': [2, 2],
             'mode': 'bilinear', 'out_dtypes': ['si8'], 'out_shapes': [(1, 2, 2, 2)], **change}
    with pytest.raises(BpuError, match=message):
        kernel_set('fast').plan(f'bpu.{op}', [Operand(each, (1, 4, 4, 2)) for each in dtypes],
                                attrs)


@pytest.mark.parametrize('pad', [[3, 0, 0, 0], [0, 0, 0, 3]])
def test_a_max_pool_padded_by_a_window_is_left_to_the_reference(pad):
    attrs = dict(kernel=[3, 3], stride=[1, 1], pad=pad, dilation=[1, 1], ceil_mode=False,
                 out_dtypes=['si8'], out_shapes=[(1, 5, 5, 16)])
    assert kernel_set('fast').plan('bpu.max_pool', [Operand('si8', (1, 4, 4, 16))],
                                   attrs) is None
