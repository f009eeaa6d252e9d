"""conv_transpose2d against a scatter in numpy int64, up to the largest accumulations."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.weight_layout import channels_exchanged
from tests.kernels.epilogue_oracle import finish

EXACT = dict(multiplier=[2**14], shift=[14], relu=False, out_dtypes=['si32'])


def integers(rng, shape, dtype):
    low, high = INTEGER_RANGES[dtype]
    return rng.integers(low, high + 1, shape).astype(f'int{dtype[2:]}')


def scattered(x, weight, bias, attrs):
    """Every pixel adds its window of weights to the result; then the padding is cut off."""
    batch, height, width, channels = x.shape
    out, kh, kw, depth = weight.shape
    (sy, sx), (dy, dx), groups = attrs['stride'], attrs['dilation'], attrs['groups']
    top, left, bottom, right = attrs['pad']
    rows, columns = (height - 1) * sy + dy * (kh - 1) + 1, (width - 1) * sx + dx * (kw - 1) + 1
    whole = np.zeros((batch, rows + max(-bottom, 0), columns + max(-right, 0), out), np.int64)
    for o in range(out):
        first = o // (out // groups) * depth
        part = x[..., first:first + depth].astype(np.int64)
        for y, xx, i, j in np.ndindex(height, width, kh, kw):
            whole[:, y * sy + i * dy, xx * sx + j * dx, o] += (
                part[:, y, xx] @ weight[o, i, j].astype(np.int64))
    whole = whole[:, top:rows - bottom if bottom > 0 else None]
    return whole[:, :, left:columns - right if right > 0 else None] + bias.astype(np.int64)


def run(arrays, attrs):
    """The kernel, with its plan and without, which must agree; returns (result, plan)."""
    inputs = [torch.as_tensor(array) for array in arrays]
    operands = [Operand.of(t, i in (1, 2)) for i, t in enumerate(inputs)]
    prepared = KERNELS['bpu.conv_transpose2d'].plan(operands, attrs)
    result = prepared(inputs)[0]
    assert torch.equal(result, KERNELS['bpu.conv_transpose2d'](inputs, attrs)[0])
    assert result.dtype == TORCH_DTYPES[attrs['out_dtypes'][0]]
    return result.numpy(), prepared.plan


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equals_a_scatter_in_int64(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    groups, depth, kernel = pick(1, 1, 2), pick(1, 3, 8), pick((2, 2), (4, 4), (3, 2))
    dtype, channels, stride = pick('si8', 'si16'), groups * pick(1, 3), [pick(1, 2), pick(2, 3)]
    per = pick(1, channels)
    attrs = dict(stride=stride, dilation=[pick(1, 2), 1], groups=groups, relu=pick(True, False),
                 pad=[pick(0, 1), pick(0, 1), pick(-stride[0] + 1, 0, 1), pick(-1, 0, 1)],
                 multiplier=[int(m) for m in rng.integers(2**14, 2**15, per)],
                 shift=[int(rng.integers(14, 40))] * per, out_dtypes=[pick('si8', 'si16', 'si32')])
    x = integers(rng, (2, 4, 3, groups * depth), dtype)
    weight = integers(rng, (channels, *kernel, depth), 'si8')
    size = kernel[0] * kernel[1] * depth
    room = 2**30 - size * 128 * (2**15 if dtype == 'si16' else 2**7)
    bias = rng.integers(-room, room, channels).astype(np.int32)
    arrays, residual = [x, weight, bias], None
    acc = scattered(x, weight, bias, attrs)
    if data.draw(st.booleans()):
        residual = integers(rng, acc.shape, pick('si8', 'si16'))
        attrs.update(residual_multiplier=[int(m) for m in rng.integers(2**14, 2**15, per)],
                     residual_shift=[pick(2, 6, 14, 20)] * per)
        arrays.append(residual)
    result, _ = run(arrays, attrs)
    assert np.array_equal(result, finish(acc, attrs, residual))


@pytest.mark.parametrize('dtype, depth, groups, carrier', [
    ('si8', 64, 1, 'float32'), ('si8', 65, 1, 'float32_chunks'), ('si8', 300, 1, 'float32_chunks'),
    ('si8', 65, 2, 'float64'), ('si16', 2, 1, 'float32_halves'), ('si16', 31, 1, 'float32_halves'),
    ('si16', 2, 2, 'float32_halves')])
def test_carriers_at_their_largest_sums(dtype, depth, groups, carrier):
    """All terms of one sign and full size, stride 1: the inner sums are as large as the bound."""
    low, high = INTEGER_RANGES[dtype]
    weight = np.full((2 * groups, 4, 4, depth), -128, np.int8)
    weight[1::2] = 127
    x = np.full((1, 7, 5, depth * groups), low, f'int{dtype[2:]}')
    x[:, 4:] = high
    attrs = dict(stride=[1, 1], pad=[0] * 4, dilation=[1, 1], groups=groups, **EXACT)
    bias = np.zeros(2 * groups, np.int32)
    result, plan = run([x, weight, bias], attrs)
    assert plan.carrier == carrier
    assert np.array_equal(result, scattered(x, weight, bias, attrs))
    assert np.abs(result.astype(np.int64)).max() == depth * 16 * 128 * -low


def test_an_accumulator_that_may_leave_int32_is_refused():
    arrays = [np.zeros((1, 2, 2, 32), np.int16), np.full((1, 4, 4, 32), -128, np.int8),
              np.zeros(1, np.int32)]
    attrs = dict(stride=[2, 2], pad=[1] * 4, dilation=[1, 1], groups=1, **EXACT)
    with pytest.raises(BpuError, match='bpu.conv_transpose2d: the accumulator of output channel 0'):
        run(arrays, attrs)


@pytest.mark.parametrize('groups', [1, 2, 3])
def test_exchanging_channels_of_weights_is_its_own_inverse(groups):
    weight = torch.arange(6 * groups * 2 * 9.0).view(6 * groups, 2, 3, 3)
    exchanged = channels_exchanged(weight, groups)
    assert exchanged.shape == (2 * groups, 6, 3, 3)
    assert torch.equal(channels_exchanged(exchanged, groups), weight)
    # Output channel o of group g reads the inputs of group g alone.
    x = torch.randn(1, 6 * groups, 4, 4)
    whole = F.conv_transpose2d(x, weight, groups=groups)
    for o in range(2 * groups):
        inputs = x[:, 6 * (o // 2):6 * (o // 2) + 6]
        alone = F.conv_transpose2d(inputs, exchanged[o][:, None])
        torch.testing.assert_close(whole[:, o:o + 1], alone)
