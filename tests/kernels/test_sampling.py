"""grid_sample against a loop over Python integers, and its distance to the float op."""
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.sampling_grid import axis_sampling


def sampling_attrs(height, width, scale, padding, bits=8):
    x, y = axis_sampling(width, scale, bits), axis_sampling(height, scale, bits)
    return dict(x_multiplier=[x.multiplier], x_shift=[x.shift], x_offset=x.offset,
                y_multiplier=[y.multiplier], y_shift=[y.shift], y_offset=y.offset,
                fraction_bits=bits, padding=padding, out_dtypes=['si8'])


def sample(values, grid, attrs):
    """Bilinear sampling in Python integers, with no clamp of far positions."""
    one = 1 << attrs['fraction_bits']
    _, height, width, channels = values.shape
    out = np.zeros((*grid.shape[:3], channels), np.int64)
    for n, i, j in np.ndindex(grid.shape[:3]):
        position = []
        for axis, size in ((0, width), (1, height)):
            name = 'xy'[axis]
            p = round(Fraction(int(grid[n, i, j, axis]) * attrs[f'{name}_multiplier'][0])
                      / Fraction(2)**attrs[f'{name}_shift'][0]) + attrs[f'{name}_offset']
            if attrs['padding'] == 'border':
                p = min(max(p, 0), (size - 1) * one)
            position.append(divmod(p, one))
        (x, fx), (y, fy) = position
        total = np.zeros(channels, object)
        for yy, wy in ((y, one - fy), (y + 1, fy)):
            for xx, wx in ((x, one - fx), (x + 1, fx)):
                if 0 <= yy < height and 0 <= xx < width:
                    total = total + values[n, yy, xx].astype(object) * (wy * wx)
        out[n, i, j] = [round(Fraction(int(t), one * one)) for t in total]
    return out


def run(values, grid, attrs):
    inputs = [torch.as_tensor(values), torch.as_tensor(grid)]
    result = KERNELS['bpu.grid_sample'](inputs, attrs)[0]
    prepared = KERNELS['bpu.grid_sample'].plan([Operand.of(t) for t in inputs], attrs)
    assert torch.equal(result, prepared(inputs)[0])
    return result.numpy()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_a_loop_over_python_integers(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    scale = data.draw(st.sampled_from([1 / 2**15, 1.3 / 2**15, 4 / 2**15, 1000.0]))
    bits = data.draw(st.sampled_from([1, 4, 8, 9, 11]))
    attrs = sampling_attrs(height, width, scale, data.draw(st.sampled_from(['zeros', 'border'])),
                           bits)
    values = rng.choice([-128, 127, 0, 5, -77], (2, height, width, 3)).astype(np.int8)
    grid = rng.integers(-2**15, 2**15, (2, 4, 5, 2)).astype(np.int16)
    grid[0, 0] = rng.choice([-2**15, 2**15 - 1, 0], (5, 2))
    assert np.array_equal(run(values, grid, attrs), sample(values, grid, attrs))


@pytest.mark.parametrize('bits, carrier', [(8, 'float32'), (11, 'float64')])
@pytest.mark.parametrize('value', [-128, 127])
def test_the_weighted_sum_is_exact_at_its_largest(bits, carrier, value):
    """A constant image at the end of si8: the sum is 128 * 2**(2 * bits) at every position."""
    values = np.full((1, 6, 7, 4), value, np.int8)
    grid = np.random.default_rng(0).integers(-2**14, 2**14, (1, 20, 20, 2)).astype(np.int16)
    attrs = sampling_attrs(6, 7, 1 / 2**15, 'border', bits)
    operands = [Operand('si8', values.shape), Operand('si16', grid.shape)]
    assert KERNELS['bpu.grid_sample'].plan(operands, attrs).plan.carrier == carrier
    assert (run(values, grid, attrs) == value).all()


@pytest.mark.parametrize('padding', ['zeros', 'border'])
@pytest.mark.parametrize('scale', [1.0, 1e5, 1e30])
def test_positions_far_outside_do_not_overflow(padding, scale):
    values = np.random.default_rng(0).integers(-128, 128, (1, 4, 5, 2)).astype(np.int8)
    grid = np.array([[[[-2**15, -2**15], [2**15 - 1, 2**15 - 1], [-2**15, 2**15 - 1]]]], np.int16)
    result = run(values, grid, sampling_attrs(4, 5, scale, padding))[0, 0]
    if padding == 'zeros':
        assert not result.any()
    else:
        assert np.array_equal(result, [values[0, 0, 0], values[0, 3, 4], values[0, 3, 0]])


@pytest.mark.parametrize('padding', ['zeros', 'border'])
def test_the_distance_to_float_is_the_positions_error_and_one_rounding(padding):
    height, width, scale = 23, 167, 1.1 / 2**15
    values = torch.randint(-128, 128, (1, height, width, 2)).to(torch.int8)
    grid = torch.randint(-2**15, 2**15, (1, 40, 50, 2)).to(torch.int16)
    attrs = sampling_attrs(height, width, scale, padding)
    exact = F.grid_sample(values.permute(0, 3, 1, 2).double(), grid.double() * scale,
                          padding_mode=padding, align_corners=False).permute(0, 2, 3, 1)
    errors = [axis_sampling(size, scale).max_error for size in (height, width)]
    limit = 0.5 + 255 * sum(errors)  # bilinear values change by at most 255 LSB per px and axis
    assert (torch.as_tensor(run(values, grid, attrs)) - exact).abs().max() <= limit


@given(st.integers(1, 2000), st.floats(0.5, 4), st.integers(2, 11))
def test_the_reported_position_error_holds_inside_the_image(size, reach, bits):
    scale = float(np.float32(reach / 2**15))
    axis = axis_sampling(size, scale, bits)
    codes = np.arange(-2**15, 2**15)
    real = ((codes * scale + 1) * size - 1) / 2
    fixed = np.rint(codes * (axis.multiplier * 2.0**-axis.shift)) + axis.offset
    inside = (real >= -1) & (real <= size)
    error = np.abs(fixed / 2**bits - real)[inside].max()
    assert error <= axis.max_error + 1e-9
    assert axis.max_error <= 2.0**-(bits + 1) + (size + 1) / 2 * 2.0**-15


def test_image_and_query_blocks_are_independent():
    values = torch.randint(-128, 128, (3, 5, 6, 8)).to(torch.int8)
    grid = torch.randint(-2**15, 2**15, (3, 9000, 1, 2)).to(torch.int16)
    attrs = sampling_attrs(5, 6, 1 / 2**15, 'zeros')
    whole = run(values, grid, attrs)
    part = run(values[1:2].clone(), grid[1:2, 8000:].clone(), attrs)
    assert np.array_equal(whole[1:2, 8000:], part)


@pytest.mark.parametrize('dtypes, change, message', [
    (('si16', 'si16'), {}, 'si8 values and an si16 grid, found si16'),
    (('si8', 'si8'), {}, 'found si8 and si8'),
    (('si8', 'si16'), {'padding': 'reflection'}, 'found reflection'),
    (('si8', 'si16'), {'fraction_bits': 12}, 'must be in .1, 11.*found 12')])
def test_what_the_op_does_not_take_is_refused(dtypes, change, message):
    attrs = {**sampling_attrs(4, 4, 1 / 2**15, 'zeros'), **change}
    with pytest.raises(BpuError, match=message):
        KERNELS['bpu.grid_sample'].plan([Operand(d, (1, 4, 4, 2)) for d in dtypes], attrs)


def test_an_image_too_wide_for_the_position_is_refused():
    with pytest.raises(BpuError, match='use fewer fraction bits'):
        axis_sampling(2**20, 1 / 2**15, 11)
