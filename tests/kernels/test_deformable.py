"""deform_conv2d against loops over Python integers, its extremes and its refusals."""
import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.numerics import Operand, quantize_multiplier

RANGES = {'si8': (-128, 127), 'si16': (-2**15, 2**15 - 1), 'si32': (-2**31, 2**31 - 1)}


def divided(value, bits):
    """``round_half_even(value / 2**bits)`` of Python integers."""
    if bits <= 0:
        return value << -bits
    whole, rest = divmod(value, 1 << bits)
    return whole + (2 * rest + (whole & 1) > 1 << bits)


def direct(image, weight, bias, offset, mask, attrs):
    """The formulas of docs/numerics.md, one output at a time; positions are not clamped."""
    f, e = attrs['fraction_bits'], attrs['sample_bits']
    one, taps = 1 << f, list(np.ndindex(weight.shape[1:3]))
    _, height, width, channels = image.shape
    groups, group_channels = attrs['offset_groups'], weight.shape[3]
    low, high = RANGES[attrs['out_dtypes'][0]]
    out = np.zeros((*offset.shape[:3], len(weight)), np.int64)

    def rescaled(value, prefix='', channel=0):
        return divided(value * attrs[f'{prefix}multiplier'][channel],
                       attrs[f'{prefix}shift'][channel])

    @functools.lru_cache(maxsize=None)
    def sample(n, oy, ox, tap, c):
        group = c // (channels // groups)
        index = group * len(taps) + tap
        corners = []
        for axis, o in enumerate((oy, ox)):
            anchor = o * attrs['stride'][axis] - attrs['pad'][axis] \
                + taps[tap][axis] * attrs['dilation'][axis]
            pixel, upper = divmod(rescaled(int(offset[n, oy, ox, 2 * index + axis]), 'offset_')
                                  + anchor * one, one)
            corners.append(((pixel, one - upper), (pixel + 1, upper)))
        total = sum(wy * wx * int(image[n, y, x, c])
                    for (y, wy), (x, wx) in itertools.product(*corners)
                    if 0 <= y < height and 0 <= x < width)
        if mask is None:
            return divided(total, 2 * f - e)
        return divided(total * int(mask[n, oy, ox, index]), 2 * f + 7 - e)

    for n, oy, ox, o in np.ndindex(out.shape):
        first = o // (len(weight) // attrs['groups']) * group_channels
        acc = int(bias[o]) + sum(
            sample(n, oy, ox, tap, first + c) * int(weight[o, *taps[tap], c])
            for tap in range(len(taps)) for c in range(group_channels))
        assert abs(acc) <= 2**31 - 1
        acc = max(acc, 0) if attrs['relu'] else acc
        out[n, oy, ox, o] = min(max(rescaled(acc, '', o), low), high)
    return out


def run(arrays, attrs):
    inputs = [torch.as_tensor(array) for array in arrays if array is not None]
    result = KERNELS['bpu.deform_conv2d'](inputs, attrs)[0]
    prepared = KERNELS['bpu.deform_conv2d'].plan(operands(inputs), attrs)
    assert torch.equal(result, prepared(inputs)[0])
    return result.numpy()


def operands(inputs):
    return [Operand.of(torch.as_tensor(x), constant=i in (1, 2)) for i, x in enumerate(inputs)]


def case(rng, dtype='si8', masked=True, out_dtype='si8', kernel=(3, 2), groups=2, offset_groups=2,
         e=7, f=8, scale=2.0**-8, batch=2, size=(4, 3), channels=4, outputs=4, stride=(1, 1),
         pad=(1, 0, 1, 1), dilation=(1, 1), reach=600, relu=False, ratio=None):
    """Random arrays at and around the ends of their types, and attributes."""
    height, width = ((s + pad[i] + pad[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
                     for i, s in enumerate(size))
    low, high = RANGES[dtype]
    image = rng.choice([low, high, 0, low + 1, 3, -77], (batch, *size, channels)).astype(
        np.int8 if dtype == 'si8' else np.int16)
    weight = rng.choice([-128, 127, 0, 5, -77], (outputs, *kernel, channels // groups)).astype(
        np.int8)
    maps = offset_groups * kernel[0] * kernel[1]
    offset = rng.integers(-reach, reach + 1, (batch, height, width, 2 * maps)).astype(np.int16)
    offset[0, 0] = rng.choice([-2**15, 2**15 - 1, 0, 256, -256], offset[0, 0].shape)
    mask = rng.choice([-128, 127, 0, 1, 64, 90], (batch, height, width, maps)).astype(np.int8)
    bias = rng.integers(-2**20, 2**20, outputs).astype(np.int32)
    ratio = ratio or RANGES[out_dtype][1] / (2.0**(7 + e) * 300 * (1 if dtype == 'si8' else 256))
    pairs = [quantize_multiplier(ratio * factor) for factor in rng.uniform(0.3, 3, outputs)]
    multiplier, shift = quantize_multiplier(scale * 2**f)
    attrs = dict(stride=list(stride), pad=list(pad), dilation=list(dilation), groups=groups,
                 offset_groups=offset_groups, fraction_bits=f, sample_bits=e,
                 offset_multiplier=[multiplier], offset_shift=[shift],
                 multiplier=[m for m, _ in pairs], shift=[s for _, s in pairs], relu=relu,
                 out_dtypes=[out_dtype])
    return [image, weight, bias, offset, mask if masked else None], attrs


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_equals_loops_over_python_integers(data):
    def pick(*values):
        return data.draw(st.sampled_from(values))

    dtype = pick('si8', 'si8', 'si16')
    f = pick(8, 8, 4, 1)
    arrays, attrs = case(
        np.random.default_rng(data.draw(st.integers(0, 2**32))), dtype, pick(True, False),
        pick('si8', 'si16', 'si32'), pick((3, 2), (1, 1), (2, 3)), pick(1, 2, 4), pick(1, 2, 4),
        min(pick(0, 4) if dtype == 'si16' else pick(0, 1, 7, 12), 2 * f), f,
        pick(2.0**-8, 0.0123, 3.0, 1e-7), stride=pick((1, 1), (2, 1), (1, 3)),
        dilation=pick((1, 1), (1, 2)), pad=pick((1, 1, 1, 1), (0, 2, 1, 0)),
        reach=pick(300, 2**15 - 1), relu=pick(True, False), batch=pick(1, 2))
    assert np.array_equal(run(arrays, attrs), direct(*arrays, attrs))


@given(st.integers(-2**40, 2**40), st.integers(-3, 45))
def test_the_oracle_rounds_as_fractions_do(value, bits):
    assert divided(value, bits) == round(Fraction(value) / Fraction(2)**bits)


def test_offsets_of_whole_pixels_read_pixels_and_far_ones_read_zeros():
    """Weights of one tap and an exact result: no arithmetic but the positions."""
    rng = np.random.default_rng(0)
    (image, _, _, offset, _), attrs = case(rng, masked=False, kernel=(1, 1), groups=1, channels=1,
                                           offset_groups=1, outputs=1, pad=(0, 0, 0, 0), e=0,
                                           batch=1)
    attrs.update(multiplier=[1 << 14], shift=[14])
    height, width = image.shape[1:3]
    places = [(0, 0), (0, 1), (3, 2), (-1, 0), (-1.0, 5.0), (127, 127), (-128, -128), (0, -1)]
    for (y, x), value in zip(places, itertools.count(1)):
        offset[:] = np.array([y * 256, x * 256])
        image[:] = np.arange(height * width).reshape(image.shape) + value
        found = run([image, np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32), offset], attrs)
        expected = np.zeros((height, width), np.int64)
        for oy, ox in np.ndindex(height, width):
            if 0 <= oy + y < height and 0 <= ox + x < width:
                expected[oy, ox] = image[0, int(oy + y), int(ox + x), 0]
        assert np.array_equal(found[0, ..., 0], expected)


@pytest.mark.parametrize('value', [-128, 127])
@pytest.mark.parametrize('dtype, masked, image_carrier', [
    ('si8', False, 'float32'), ('si8', True, 'float32'), ('si16', False, 'float64'),
    ('si16', True, 'float64')])
def test_the_largest_samples_are_exact(value, dtype, masked, image_carrier):
    """A constant image at the end of its type, inside the image: a sample is 2**e times a pixel."""
    value = value if dtype == 'si8' else value * 256
    arrays, attrs = case(np.random.default_rng(1), dtype, masked, 'si32', kernel=(1, 1), groups=1,
                         offset_groups=1, channels=1, outputs=1, pad=(0, 0, 0, 0), size=(9, 9),
                         e=9 if dtype == 'si8' else 7)
    image, weight, bias, offset, mask = arrays
    image[:], weight[:], bias[:], offset[:] = value, 1, 0, 0
    offset[:, :8, :8] = np.random.default_rng(2).integers(0, 257, (2, 8, 8, 2))
    if masked:
        mask[:] = -128  # as large as a mask can be
    attrs.update(multiplier=[1 << 14], shift=[14])
    plan = KERNELS['bpu.deform_conv2d'].plan(operands([a for a in arrays if a is not None]),
                         attrs).plan
    assert plan.image_carrier == image_carrier
    expected = value * 2**attrs['sample_bits'] * (-1 if masked else 1)
    assert (run(arrays, attrs) == expected).all()


@pytest.mark.parametrize('taps, carrier', [(1024, 'float32'), (1025, 'float64')])
def test_the_product_is_exact_at_the_bound_of_its_carrier(taps, carrier):
    arrays, attrs = case(np.random.default_rng(3), masked=False, out_dtype='si32', kernel=(1, 1),
                         groups=1, offset_groups=1, channels=taps, outputs=1, pad=(0, 0, 0, 0),
                         batch=1, e=0)
    image, weight, bias, offset, _ = arrays
    image[:], weight[:], offset[:] = -128, -128, 0
    image[..., -1], bias[:] = -127, 1
    attrs.update(multiplier=[1 << 14], shift=[14])
    plan = KERNELS['bpu.deform_conv2d'].plan(operands(arrays[:4]), attrs).plan
    assert plan.carrier == carrier
    assert (run(arrays, attrs) == 128 * 128 * taps - 128 + 1).all()


def test_blocks_and_images_are_independent():
    arrays, attrs = case(np.random.default_rng(4), batch=3, size=(160, 150), reach=2000)
    whole = run(arrays, attrs)
    part = [a[1:2].copy() if i in (0, 3, 4) else a for i, a in enumerate(arrays)]
    assert np.array_equal(whole[1:2], run(part, attrs))


def test_an_accumulator_that_may_leave_int32_is_refused():
    arrays, attrs = case(np.random.default_rng(5), kernel=(3, 3), groups=1, channels=16, e=13)
    arrays[1][:], arrays[2][:] = 127, 0
    bound = 127 * 144 * 128 << 13
    with pytest.raises(BpuError, match=f'channel 0 may reach {bound}, .*fewer sample_bits'):
        KERNELS['bpu.deform_conv2d'].plan(operands(arrays), attrs)
    KERNELS['bpu.deform_conv2d'].plan(operands(arrays), {**attrs, 'sample_bits': 6})


@pytest.mark.parametrize('change, message', [
    (dict(fraction_bits=9), r'fraction_bits must be in \[1, 8\], found 9'),
    (dict(fraction_bits=3), r'sample_bits must be in \[0, 6\], found 7'),
    (dict(stride=[2**25, 1]), 'do not fit 30 bits: use fewer fraction bits')])
def test_what_the_op_does_not_have_is_refused(change, message):
    arrays, attrs = case(np.random.default_rng(6))
    with pytest.raises(BpuError, match=message):
        KERNELS['bpu.deform_conv2d'].plan(operands(arrays), {**attrs, **change})


@pytest.mark.parametrize('index, dtype', [(0, np.int32), (1, np.int16), (3, np.int8),
                                          (4, np.int16)])
def test_other_types_are_refused(index, dtype):
    arrays, attrs = case(np.random.default_rng(7))
    arrays[index] = arrays[index].astype(dtype)
    with pytest.raises(BpuError, match='takes si8, si8, si32, si16, si8 .the first may be si16.'):
        KERNELS['bpu.deform_conv2d'].plan(operands(arrays), attrs)
