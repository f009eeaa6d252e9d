"""avg_pool against numpy int64 and fractions, up to the largest window sums."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand, quantize_multiplier


def run(x, attrs):
    inputs = [torch.as_tensor(x)]
    result = KERNELS['bpu.avg_pool'](inputs, attrs)[0]
    prepared = KERNELS['bpu.avg_pool'].plan([Operand.of(inputs[0])], attrs)
    assert torch.equal(result, prepared(inputs)[0])
    assert result.dtype == TORCH_DTYPES[attrs['out_dtypes'][0]]
    return result.numpy()


def pool_attrs(kernel, stride, ratio, dtype):
    multiplier, shift = quantize_multiplier(ratio)
    return dict(kernel=kernel, stride=stride, multiplier=[multiplier], shift=[shift],
                out_dtypes=[dtype])


def pooled(x, attrs):
    (kh, kw), (sy, sx) = attrs['kernel'], attrs['stride']
    batch, height, width, channels = x.shape
    low, high = INTEGER_RANGES[attrs['out_dtypes'][0]]
    out = np.empty((batch, (height - kh) // sy + 1, (width - kw) // sx + 1, channels), np.int64)
    for n, i, j, c in np.ndindex(out.shape):
        total = int(x[n, i * sy:i * sy + kh, j * sx:j * sx + kw, c].astype(np.int64).sum())
        exact = Fraction(total * attrs['multiplier'][0]) / Fraction(2)**attrs['shift'][0]
        out[n, i, j, c] = min(max(round(exact), low), high)
    return out


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_window_sums_in_int64(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(['si8', 'si16']))
    low, high = INTEGER_RANGES[dtype]
    shape = (2, data.draw(st.integers(3, 9)), data.draw(st.integers(3, 9)), 3)
    kernel, stride = ([data.draw(st.integers(1, 3)) for _ in range(2)] for _ in range(2))
    attrs = pool_attrs(kernel, stride, data.draw(st.floats(1e-4, 2)),
                       data.draw(st.sampled_from(['si8', 'si16', 'si32'])))
    x = rng.choice([low, high, 0, 1, -5], shape).astype(f'int{dtype[2:]}')
    assert np.array_equal(run(x, attrs), pooled(x, attrs))


@pytest.mark.parametrize('value', [-2**15, 2**15 - 1])
def test_the_largest_window_of_si16_is_exact_and_one_more_is_refused(value):
    x = np.full((1, 255, 257, 1), value, np.int16)
    attrs = pool_attrs([255, 257], [1, 1], 1.0, 'si32')
    assert run(x, attrs).item() == 255 * 257 * value
    with pytest.raises(BpuError, match='sum of 65536 si16 values does not fit int32.* two steps'):
        KERNELS['bpu.avg_pool'].plan([Operand('si16', (1, 256, 256, 1))],
                      {**attrs, 'kernel': [256, 256]})


def test_a_large_map_is_cut_in_blocks_without_a_seam():
    x = torch.randint(-128, 128, (2, 90, 70, 32), dtype=torch.int8)
    attrs = pool_attrs([3, 2], [2, 1], 1 / 6, 'si8')
    whole = run(x, attrs)
    assert np.array_equal(whole[1:, 20:30], run(x[1:, 40:61].clone(), attrs))


def test_si32_is_refused():
    with pytest.raises(BpuError, match='takes si8 and si16 values, found si32'):
        KERNELS['bpu.avg_pool'].plan([Operand('si32', (1, 4, 4, 1))],
                      pool_attrs([2, 2], [2, 2], 0.25, 'si8'))
