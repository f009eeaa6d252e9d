"""resize against a loop over Python integers, and its distance to torch."""
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
from mmdet_bpu.program.resize_positions import fixed_point

EXTREMES = [-128, 127, 0, 1, -77]


def resize_attrs(start, step, size, mode, position_bits=20, fraction_bits=11):
    return dict(start=start, step=step, size=size, mode=mode, position_bits=position_bits,
                fraction_bits=fraction_bits if mode == 'bilinear' else 0, out_dtypes=['si8'])


def run(values, attrs):
    inputs = [torch.as_tensor(values)]
    result = KERNELS['bpu.resize'](inputs, attrs)[0]
    prepared = KERNELS['bpu.resize'].plan([Operand.of(inputs[0])], attrs)
    assert torch.equal(result, prepared(inputs)[0])
    assert result.dtype == torch.int8 and result.is_contiguous()
    return result.numpy()


def read(attrs, axis, index, size):
    """Lower pixel, upper pixel and weight of the upper one, for one result along an axis."""
    bits = attrs['fraction_bits']
    exact = Fraction(attrs['start'][axis] + index * attrs['step'][axis],
                     2**(attrs['position_bits'] - bits))
    position = round(exact) if bits else exact.numerator // exact.denominator
    position = min(max(position, 0), (size - 1) * 2**bits)
    lower, weight = divmod(position, 2**bits)
    return lower, min(lower + 1, size - 1), weight


def resized(values, attrs):
    """The result in Python integers, pixel by pixel."""
    batch, height, width, channels = values.shape
    one = 2**attrs['fraction_bits']
    out = np.zeros((batch, *attrs['size'], channels), np.int64)
    for i, j in np.ndindex(*attrs['size']):
        y0, y1, wy = read(attrs, 0, i, height)
        x0, x1, wx = read(attrs, 1, j, width)
        pixels = values[:, [y0, y0, y1, y1], [x0, x1, x0, x1]].astype(object)
        weights = [(one - wy) * (one - wx), (one - wy) * wx, wy * (one - wx), wy * wx]
        total = sum(w * pixels[:, k] for k, w in enumerate(weights))
        for index in np.ndindex(batch, channels):
            out[index[0], i, j, index[1]] = round(Fraction(int(total[index]), one * one))
    return out


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_a_loop_over_python_integers(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = (2, data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)), 3)
    mode = data.draw(st.sampled_from(['nearest', 'bilinear']))
    far = st.integers(-2**23, 2**23)
    attrs = resize_attrs([data.draw(far) for _ in range(2)],
                         [data.draw(st.integers(-2**22, 2**22)) for _ in range(2)],
                         [data.draw(st.integers(1, 9)) for _ in range(2)], mode,
                         fraction_bits=data.draw(st.sampled_from([1, 5, 8, 11])))
    values = rng.choice(EXTREMES, shape).astype(np.int8)
    assert np.array_equal(run(values, attrs), resized(values, attrs))


@pytest.mark.parametrize('value', [-128, 127])
def test_the_weighted_sum_is_exact_at_its_largest(value):
    """A constant image at the end of si8: the sum is 128 * 2**22 at every position."""
    values = np.full((1, 5, 6, 4), value, np.int8)
    attrs = resize_attrs([-2**18, 12345], [777777, 333333], [9, 23], 'bilinear')
    assert (run(values, attrs) == value).all()


def test_neighbours_at_both_ends_of_si8_do_not_overflow():
    values = np.where(np.indices((1, 8, 8, 2)).sum(0) % 2, 127, -128).astype(np.int8)
    attrs = resize_attrs([-2**17] * 2, [2**18 + 1] * 2, [32, 32], 'bilinear')
    assert np.array_equal(run(values, attrs), resized(values, attrs))


@pytest.mark.parametrize('corners', [False, True])
@pytest.mark.parametrize('size', [(16, 22), (13, 9), (5, 31)])
def test_bilinear_is_within_one_lsb_of_torch_at_extremes(size, corners):
    values = np.random.default_rng(0).choice([-128, 127], (1, 8, 11, 16)).astype(np.int8)
    steps = [(n - 1) / (m - 1) if corners else n / m for n, m in zip((8, 11), size)]
    starts = [0.0 if corners else step / 2 - 0.5 for step in steps]
    attrs = resize_attrs([fixed_point(s) for s in starts], [fixed_point(s) for s in steps], size,
                         'bilinear')
    exact = F.interpolate(torch.as_tensor(values).permute(0, 3, 1, 2).double(), size,
                          mode='bilinear', align_corners=corners).permute(0, 2, 3, 1).numpy()
    # Rounding is half an LSB, the position at most 2 x 255 x 2**-11.
    assert np.abs(run(values, attrs) - exact).max() <= 0.5 + 2 * 255 * 2.0**-11


def test_a_large_image_is_cut_in_blocks_without_a_seam():
    values = torch.randint(-128, 128, (2, 60, 50, 64), dtype=torch.int8)
    attrs = resize_attrs([-2**18] * 2, [2**19] * 2, [120, 100], 'bilinear')
    whole = run(values, attrs)
    part = run(values[1:, 20:40].clone(), {**attrs, 'size': [40, 100]})
    assert np.array_equal(whole[1:, 42:78], part[:, 2:38])


@pytest.mark.parametrize('dtype, change, message', [
    ('si16', {}, 'takes si8 values, found si16'),
    ('si8', {'mode': 'bicubic'}, "one of nearest, bilinear, found 'bicubic'"),
    ('si8', {'fraction_bits': 12}, 'found 12 and 20'),
    ('si8', {'position_bits': 8}, 'found 11 and 8')])
def test_what_the_op_does_not_take_is_refused(dtype, change, message):
    attrs = {**resize_attrs([0, 0], [1, 1], [4, 4], 'bilinear'), **change}
    with pytest.raises(BpuError, match=message):
        KERNELS['bpu.resize'].plan([Operand(dtype, (1, 4, 4, 2))], attrs)
