"""Sums, maxima, pooling and top-k against numpy and Python."""
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


def integers(rng, shape, dtype):
    low, high = INTEGER_RANGES[dtype]
    return rng.integers(low, high + 1, shape).astype(f'int{dtype[2:]}')


def run(op, array, attrs):
    inputs = [torch.as_tensor(array)]
    outputs = KERNELS[op](inputs, attrs)
    prepared = KERNELS[op].plan([Operand.of(inputs[0])], attrs)
    assert all(torch.equal(a, b) for a, b in zip(outputs, prepared(inputs)))
    return [output.numpy() for output in outputs]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_reduce_sum_equals_int64(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(['si8', 'si16']))
    out_dtype = data.draw(st.sampled_from(['si8', 'si16', 'si32']))
    dims = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    x = integers(rng, (2, 3, 5, 4), dtype)
    total = x.astype(np.int64).sum(tuple(dims), keepdims=True)
    multiplier, shift = quantize_multiplier(data.draw(st.floats(1e-4, 2)))
    result, = run('bpu.reduce_sum', x, dict(dims=dims, multiplier=[multiplier], shift=[shift],
                                            out_dtypes=[out_dtype]))
    low, high = INTEGER_RANGES[out_dtype]
    expected = [min(max(round(Fraction(int(t) * multiplier) / Fraction(2)**shift), low), high)
                for t in total.ravel()]
    assert result.shape == total.shape and result.ravel().tolist() == expected


IDENTITY = dict(multiplier=[2**14], shift=[14], out_dtypes=['si32'])


@pytest.mark.parametrize('value', [-2**15, 2**15 - 1])
def test_the_longest_sum_of_si16_is_exact_and_one_more_is_refused(value):
    x = np.full((1, 65535, 1), value, np.int16)
    result, = run('bpu.reduce_sum', x, {**IDENTITY, 'dims': [1]})
    assert result.item() == 65535 * value
    with pytest.raises(BpuError, match='two steps of at most 65535 elements'):
        KERNELS['bpu.reduce_sum'].plan([Operand('si16', (1, 65536))], {**IDENTITY, 'dims': [1]})


def test_group_norm_at_full_size_must_be_cut_in_two():
    with pytest.raises(BpuError, match='the sum of 133600 si16 values'):
        KERNELS['bpu.reduce_sum'].plan([Operand('si16', (1, 16700, 32, 8))],
                      {**IDENTITY, 'dims': [1, 3]})


def test_an_si32_sum_is_checked_when_it_runs():
    x = np.array([[2**31 - 1, -5, 5]], np.int32)
    assert run('bpu.reduce_sum', x, {**IDENTITY, 'dims': [1]})[0].item() == 2**31 - 1
    with pytest.raises(BpuError, match='left int32'):
        run('bpu.reduce_sum', x + np.int32([0, 6, 0]), {**IDENTITY, 'dims': [1]})


@pytest.mark.parametrize('dtype', ['si8', 'si16', 'si32'])
def test_extremes_equal_numpy(dtype):
    x = integers(np.random.default_rng(0), (3, 4, 5), dtype)
    attrs = dict(dims=[0, -1], out_dtypes=[dtype])
    assert np.array_equal(run('bpu.reduce_max', x, attrs)[0], x.max((0, 2), keepdims=True))
    assert np.array_equal(run('bpu.reduce_min', x, attrs)[0], x.min((0, 2), keepdims=True))


@pytest.mark.parametrize('dtype', ['si8', 'si16', 'si32'])
@pytest.mark.parametrize('pad', [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 0]])
@pytest.mark.parametrize('ceil_mode', [False, True])
def test_max_pool_takes_the_largest_inside_the_image(dtype, pad, ceil_mode):
    x = integers(np.random.default_rng(1), (2, 8, 7, 3), dtype)
    x[:, 0] = INTEGER_RANGES[dtype][0]
    attrs = dict(kernel=[3, 3], stride=[2, 2], pad=pad, dilation=[1, 1], ceil_mode=ceil_mode,
                 out_dtypes=[dtype])
    result, = run('bpu.max_pool', x, attrs)
    for n, i, j, c in np.ndindex(result.shape):
        top, left = i * 2 - pad[0], j * 2 - pad[1]
        window = x[n, max(top, 0):top + 3, max(left, 0):left + 3, c]
        assert result[n, i, j, c] == window.max()
    if pad[:2] == pad[2:]:
        expected = torch.nn.functional.max_pool2d(
            torch.as_tensor(x).permute(0, 3, 1, 2).double(), 3, 2, pad[:2], 1, ceil_mode)
        assert np.array_equal(result, expected.permute(0, 2, 3, 1))


def test_max_pool_refuses_a_window_of_padding_alone():
    attrs = dict(kernel=[2, 2], stride=[1, 1], pad=[2, 0, 0, 0], dilation=[1, 1],
                 ceil_mode=False, out_dtypes=['si8'])
    with pytest.raises(BpuError, match='as wide as a window of 2'):
        KERNELS['bpu.max_pool']([torch.zeros(1, 4, 4, 1, dtype=torch.int8)], attrs)


def test_max_pool_keeps_neighbouring_si32_values_apart():
    x = torch.tensor([2**31 - 2, 2**31 - 1], dtype=torch.int32).view(1, 2, 1, 1)
    attrs = dict(kernel=[2, 1], stride=[1, 1], pad=[0] * 4, dilation=[1, 1], ceil_mode=False,
                 out_dtypes=['si32'])
    assert KERNELS['bpu.max_pool']([x], attrs)[0].item() == 2**31 - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.sampled_from([8, 16, 32]),
       st.data())
def test_topk_is_descending_and_ties_take_the_lower_index(values, bits, data):
    k = data.draw(st.integers(1, len(values)))
    x = np.array([values, values[::-1]], f'int{bits}')
    x[x == 3], x[x == -3] = 2**(bits - 1) - 1, -2**(bits - 1)
    top, indices = run('bpu.topk', x, dict(k=k, dim=1, out_dtypes=[f'si{bits}', 'si32']))
    assert indices.dtype == np.int32
    for row in range(2):
        order = sorted(range(len(values)), key=lambda i: (-int(x[row, i]), i))[:k]
        assert indices[row].tolist() == order
        assert top[row].tolist() == [x[row, i] for i in order]


def test_results_have_the_declared_type():
    x = torch.zeros(2, 3, dtype=torch.int8)
    for dtype in ('si8', 'si16', 'si32'):
        out = KERNELS['bpu.reduce_sum']([x], {**IDENTITY, 'dims': [0], 'out_dtypes': [dtype]})[0]
        assert out.dtype == TORCH_DTYPES[dtype]
