"""conv2d, linear and matmul against numpy int64 loops, up to the largest accumulations."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference.carriers import CARRIERS
from mmdet_bpu.kernels.reference.epilogue import accumulator_bounds
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand
from tests.kernels.epilogue_oracle import finish


def convolve(x, weight, bias, attrs) -> np.ndarray:
    """Direct convolution in int64, channels last."""
    top, left, bottom, right = attrs['pad']
    x = np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    channels, height, width, depth = weight.shape
    (sy, sx), (dy, dx), groups = attrs['stride'], attrs['dilation'], attrs['groups']
    rows = (x.shape[1] - dy * (height - 1) - 1) // sy + 1
    columns = (x.shape[2] - dx * (width - 1) - 1) // sx + 1
    out = np.zeros((len(x), rows, columns, channels), np.int64) + bias.astype(np.int64)
    for o in range(channels):
        first = o // (channels // groups) * depth
        for i in range(height):
            for j in range(width):
                window = x[:, i * dy:i * dy + sy * (rows - 1) + 1:sy,
                           j * dx:j * dx + sx * (columns - 1) + 1:sx, first:first + depth]
                out[..., o] += window @ weight[o, i, j].astype(np.int64)
    return out


def integers(rng, shape, dtype):
    low, high = INTEGER_RANGES[dtype]
    return rng.integers(low, high + 1, shape).astype(f'int{dtype[2:]}')


def run(op, arrays, attrs, constants=(1, 2)):
    """The kernel, planned before and at the call, which must agree; returns (result, plan)."""
    inputs = [torch.as_tensor(array) for array in arrays]
    operands = [Operand.of(t, i in constants) for i, t in enumerate(inputs)]
    prepared = KERNELS[op].plan(operands, attrs)
    result = prepared(inputs)[0]
    assert torch.equal(result, KERNELS[op](inputs, attrs)[0])
    assert result.dtype == TORCH_DTYPES[attrs['out_dtypes'][0]]
    return result.numpy(), prepared.plan


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_conv2d_equals_int64_loops(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    groups, depth, kernel = pick(1, 1, 2), pick(1, 3, 8), pick((1, 1), (3, 3), (2, 3))
    dtype, channels = pick('si8', 'si16'), groups * pick(1, 3)
    size = kernel[0] * kernel[1] * depth
    per = pick(1, channels)
    attrs = dict(stride=[pick(1, 2), pick(1, 2)], pad=[pick(0, 1) for _ in range(4)],
                 dilation=[pick(1, 2), 1], groups=groups, relu=pick(True, False),
                 multiplier=[int(m) for m in rng.integers(2**14, 2**15, per)],
                 shift=[int(rng.integers(14, 40))] * per, out_dtypes=[pick('si8', 'si16', 'si32')])
    x = integers(rng, (2, 7, 6, groups * depth), dtype)
    weight = integers(rng, (channels, *kernel, depth), 'si8')
    room = 2**30 - size * 128 * (2**15 if dtype == 'si16' else 2**7)
    bias = rng.integers(-room, room, channels).astype(np.int32)
    arrays, residual = [x, weight, bias], None
    acc = convolve(x, weight, bias, attrs)
    if data.draw(st.booleans()):
        residual = integers(rng, acc.shape, pick('si8', 'si16'))
        attrs.update(residual_multiplier=[int(m) for m in rng.integers(2**14, 2**15, per)],
                     residual_shift=[pick(2, 6, 14, 20)] * per)
        arrays.append(residual)
    result, _ = run('bpu.conv2d', arrays, attrs)
    assert np.array_equal(result, finish(acc, attrs, residual))


EXACT = dict(multiplier=[2**14], shift=[14], relu=False, out_dtypes=['si32'])
CONV = dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=1, **EXACT)


@pytest.mark.parametrize('dtype, depth, kernel, groups, carrier', [
    ('si8', 113, 3, 1, 'float32'), ('si8', 1024, 1, 1, 'float32'),
    ('si8', 115, 3, 1, 'float32_chunks'), ('si8', 512, 3, 1, 'float32_chunks'),
    ('si8', 1025, 1, 1, 'float32_chunks'), ('si8', 115, 3, 2, 'float64'),
    ('si16', 56, 3, 1, 'float32_halves'), ('si16', 511, 1, 1, 'float32_halves'),
    ('si16', 2, 3, 2, 'float32_halves')])
def test_conv2d_carriers_at_their_largest_sums(dtype, depth, kernel, groups, carrier):
    """All terms of one sign and full size, so that the sum is as large as the plan's bound."""
    low, high = INTEGER_RANGES[dtype]
    weight = np.full((2 * groups, kernel, kernel, depth), -128, np.int8)
    weight[1::2] = 127
    x = np.full((1, 5, 5, depth * groups), low, f'int{dtype[2:]}')
    x[:, 3:] = high
    bias = np.zeros(2 * groups, np.int32)
    attrs = {**CONV, 'groups': groups, 'pad': [kernel // 2] * 4}
    result, plan = run('bpu.conv2d', [x, weight, bias], attrs)
    assert plan.carrier == carrier
    assert np.array_equal(result, convolve(x, weight, bias, attrs))
    reached = np.abs(result.astype(np.int64)).max()
    assert reached == depth * kernel**2 * 128 * -low


def test_conv2d_reaches_the_float32_bound_with_its_bias():
    weight = np.full((1, 1, 1, 1000), -128, np.int8)
    x = np.full((1, 1, 1, 1000), -128, np.int8)
    for extra, carrier in ((0, 'float32'), (1, 'float32_chunks')):
        bias = np.array([2**24 - 1000 * 2**14 + extra], np.int32)
        result, plan = run('bpu.conv2d', [x, weight, bias], {**CONV, 'pad': [0] * 4})
        assert plan.carrier == carrier
        assert result.item() == 2**24 + extra


def test_an_accumulator_at_the_end_of_int32_is_exact_and_beyond_it_refused():
    features = 2**31 // 2**22 - 1  # 511 terms of 2**22 leave 2**22 - 1 for the bias
    x = np.full((1, features), -2**15, np.int16)
    weight = np.full((2, features), -128, np.int8)
    weight[1] = 0
    bias = np.array([2**22 - 1, -2**31 + 1], np.int32)
    result, plan = run('bpu.linear', [x, weight, bias], EXACT)
    assert plan.carrier == 'float64'
    assert result.tolist() == [[2**31 - 1, -2**31 + 1]]
    bias[0] += 1
    with pytest.raises(BpuError, match='channel 0 may reach 2147483648.*enlarge the weight scale'):
        run('bpu.linear', [x, weight, bias], EXACT)


def test_a_residual_that_may_leave_int32_is_refused():
    x, weight = np.zeros((1, 4), np.int8), np.ones((3, 4), np.int8)
    attrs = {**EXACT, 'residual_multiplier': [2**14], 'residual_shift': [-11]}
    with pytest.raises(BpuError, match='enlarge the weight scale'):
        run('bpu.linear', [x, weight, np.zeros(3, np.int32), np.zeros((1, 3), np.int8)], attrs)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_linear_equals_int64(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(['si8', 'si16']))
    features, channels = data.draw(st.sampled_from([1, 5, 300])), 3
    x = integers(rng, (2, 4, features), dtype)
    weight = integers(rng, (channels, features), 'si8')
    bias = rng.integers(-2**28, 2**28, channels).astype(np.int32)
    attrs = dict(multiplier=[int(m) for m in rng.integers(2**14, 2**15, channels)],
                 shift=[int(s) for s in rng.integers(10, 40, channels)],
                 relu=data.draw(st.booleans()),
                 out_dtypes=[data.draw(st.sampled_from(['si8', 'si16', 'si32']))])
    arrays, residual = [x, weight, bias], None
    if data.draw(st.booleans()):
        residual = integers(rng, (2, 4, channels), 'si8')
        attrs.update(residual_multiplier=[2**14 + 77], residual_shift=[data.draw(
            st.integers(-3, 30))])
        arrays.append(residual)
    result, _ = run('bpu.linear', arrays, attrs)
    acc = x.astype(np.int64) @ weight.T.astype(np.int64) + bias
    assert np.array_equal(result, finish(acc, attrs, residual))


def test_linear_covers_many_rows_in_chunks():
    rng = np.random.default_rng(0)
    x, weight = integers(rng, (9000, 64), 'si8'), integers(rng, (32, 64), 'si8')
    bias = rng.integers(-1000, 1000, 32).astype(np.int32)
    result, _ = run('bpu.linear', [x, weight, bias], EXACT)
    assert np.array_equal(result, x.astype(np.int64) @ weight.T.astype(np.int64) + bias)


@pytest.mark.parametrize('dtypes', [('si8', 'si8'), ('si16', 'si8'), ('si8', 'si16')])
@pytest.mark.parametrize('inner', [1, 40])
def test_matmul_equals_int64(dtypes, inner):
    rng = np.random.default_rng(1)
    lhs = integers(rng, (2, 3, 4, inner), dtypes[0])
    rhs = integers(rng, (2, 3, inner, 5), dtypes[1])
    attrs = dict(multiplier=[20011], shift=[26], out_dtypes=['si16'])
    result, _ = run('bpu.matmul', [lhs, rhs], attrs, ())
    assert np.array_equal(result, finish(lhs.astype(np.int64) @ rhs.astype(np.int64), attrs))


@pytest.mark.parametrize('dtype, inner, carrier', [
    ('si8', 1024, 'float32'), ('si8', 1025, 'float64'), ('si16', 511, 'float64')])
def test_matmul_carriers_at_their_largest_sums(dtype, inner, carrier):
    low = INTEGER_RANGES[dtype][0]
    lhs = np.full((2, inner), low, f'int{dtype[2:]}')
    lhs[1] = -low - 1
    rhs = np.full((inner, 1), -128, np.int8)
    result, plan = run('bpu.matmul', [lhs, rhs],
                       dict(multiplier=[2**14], shift=[14], out_dtypes=['si32']), ())
    assert plan.carrier == carrier and plan.proved
    assert result.ravel().tolist() == [inner * low * -128, inner * (low + 1) * 128]
    assert CARRIERS[carrier].bound >= abs(inner * low * -128)


def test_matmul_checks_each_run_where_the_types_do_not_exclude_overflow():
    attrs = dict(multiplier=[2**14], shift=[14], out_dtypes=['si32'])
    lhs = torch.full((1, 900), 1000, dtype=torch.int16)
    rhs = torch.full((900, 1), -128, dtype=torch.int8)
    assert KERNELS['bpu.matmul']([lhs, rhs], attrs)[0].item() == -900 * 128000
    with pytest.raises(BpuError, match='K = 900 left int32'):
        KERNELS['bpu.matmul']([lhs * 32, rhs], attrs)


def test_layers_refuse_si16_by_si16():
    with pytest.raises(BpuError, match='found si16 x si16'):
        run('bpu.linear', [np.zeros((1, 2), np.int16), np.zeros((1, 2), np.int16),
                           np.zeros(1, np.int32)], EXACT)


def test_matmul_refuses_si16_by_si16():
    with pytest.raises(BpuError, match='si16 x si16'):
        KERNELS['bpu.matmul'].plan([Operand('si16', (2, 2))] * 2,
                      dict(multiplier=[2**14], shift=[14], out_dtypes=['si8']))


def test_bounds_per_channel_are_weights_times_range_plus_bias():
    weight = torch.tensor([[1, -2], [-128, 127]], dtype=torch.int8)
    bias = torch.tensor([-5, 7], dtype=torch.int32)
    assert accumulator_bounds(weight, bias, 'si16').tolist() == [3 * 2**15 + 5, 255 * 2**15 + 7]
