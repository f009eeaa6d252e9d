"""add, sub, mul, max, min, requantize and relu against Python's big integers."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference.blocks import BLOCK
from mmdet_bpu.program.guard_bits import SIDE_LIMIT, choose_guard_bits, side_limit
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand, quantize_multiplier

DTYPES = st.sampled_from(['si8', 'si16'])


def scaled(value: int, multiplier: int, shift: int) -> int:
    return round(Fraction(value * multiplier) / Fraction(2)**shift)


def clamp(value: int, dtype: str, relu: bool = False) -> int:
    low, high = INTEGER_RANGES[dtype]
    return min(max(value, 0 if relu else low), high)


def elements(dtype):
    low, high = INTEGER_RANGES[dtype]
    return st.lists(st.one_of(st.integers(low, high), st.sampled_from([low, high, 0, -1])),
                    min_size=4, max_size=4)


def run(op, inputs, attrs):
    """The kernel, planned before and at the call, which must agree."""
    plain = KERNELS[op](inputs, attrs)
    planned = KERNELS[op].plan([Operand.of(t) for t in inputs], attrs)(inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain, planned))
    return plain[0]


def tensor(values, dtype):
    return torch.tensor(values).to(TORCH_DTYPES[dtype])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_add_and_sub_equal_big_integers(data):
    dtypes = data.draw(DTYPES), data.draw(DTYPES)
    out_dtype = data.draw(st.sampled_from(['si8', 'si16', 'si32']))
    ratios = [data.draw(st.floats(1e-3, 16)) for _ in 'lr']
    guard = data.draw(st.integers(0, choose_guard_bits(ratios, dtypes)))
    lhs, rhs = (data.draw(elements(dtype)) for dtype in dtypes)
    (lm, ls), (rm, rs) = (quantize_multiplier(ratio * 2**guard) for ratio in ratios)
    relu = data.draw(st.booleans())
    attrs = dict(lhs_multiplier=[lm], lhs_shift=[ls], rhs_multiplier=[rm], rhs_shift=[rs],
                 guard_bits=guard, relu=relu, out_dtypes=[out_dtype])
    inputs = [tensor(lhs, dtypes[0]), tensor(rhs, dtypes[1])]
    for op, sign in (('bpu.add', 1), ('bpu.sub', -1)):
        expected = []
        for a, b in zip(lhs, rhs):
            total = scaled(a, lm, ls) + sign * scaled(b, rm, rs)
            expected.append(clamp(round(Fraction(total, 2**guard)), out_dtype, relu))
        assert run(op, inputs, attrs).tolist() == expected


def add_attrs(guard_bits=4, ratio=1.0, dtype='si8'):
    multiplier, shift = quantize_multiplier(ratio * 2**guard_bits)
    return dict(lhs_multiplier=[multiplier], lhs_shift=[shift], rhs_multiplier=[multiplier],
                rhs_shift=[shift], guard_bits=guard_bits, relu=False, out_dtypes=[dtype])


@pytest.mark.parametrize('op', ['bpu.add', 'bpu.sub'])
@pytest.mark.parametrize('constant', [0, 1])
def test_a_constant_side_is_rescaled_once_with_the_same_result(op, constant):
    inputs = [tensor(np.random.randint(-128, 128, (3, 5)), 'si8'),
              tensor(np.random.randint(-128, 128, (1, 5)), 'si8')]
    attrs = add_attrs(ratio=0.7)
    operands = [Operand.of(t, i == constant) for i, t in enumerate(inputs)]
    prepared = KERNELS[op].plan(operands, attrs)
    for _ in range(2):  # the constant must survive a run
        assert torch.equal(prepared(inputs)[0], KERNELS[op](inputs, attrs)[0])


def test_a_side_that_may_leave_30_bits_is_refused_when_planned():
    attrs = add_attrs(guard_bits=20, dtype='si16')
    with pytest.raises(BpuError, match='choose fewer guard bits than 20'):
        KERNELS['bpu.add'].plan([Operand('si16', (4,))] * 2, attrs)


@given(st.floats(1e-6, 2**14), st.floats(1e-6, 2**14), DTYPES, DTYPES)
def test_chosen_guard_bits_fit_and_one_more_does_not(first, second, left, right):
    bits = choose_guard_bits([first, second], [left, right])
    assert 0 <= bits <= 8
    for ratio, dtype in ((first, left), (second, right)):
        assert side_limit(dtype, *quantize_multiplier(ratio * 2**bits)) <= SIDE_LIMIT
    if bits < 8:
        assert any(side_limit(dtype, *quantize_multiplier(ratio * 2**(bits + 2))) > SIDE_LIMIT
                   for ratio, dtype in ((first, left), (second, right)))


def test_guard_bits_are_refused_where_none_fit():
    with pytest.raises(BpuError, match='enlarge the scale of the result'):
        choose_guard_bits([2.0**16, 1.0], ['si16', 'si8'])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mul_equals_big_integers(data):
    dtypes = data.draw(DTYPES), data.draw(DTYPES)
    out_dtype = data.draw(st.sampled_from(['si8', 'si16', 'si32']))
    lhs, rhs = (data.draw(elements(dtype)) for dtype in dtypes)
    multiplier, shift = quantize_multiplier(data.draw(st.floats(1e-9, 4)))
    attrs = dict(multiplier=[multiplier], shift=[shift], out_dtypes=[out_dtype])
    inputs = [tensor(lhs, dtypes[0]), tensor(rhs, dtypes[1])]
    assert run('bpu.mul', inputs, attrs).tolist() == [
        clamp(scaled(a * b, multiplier, shift), out_dtype) for a, b in zip(lhs, rhs)]


def test_mul_refuses_si32():
    with pytest.raises(BpuError, match='found si32 x si8'):
        KERNELS['bpu.mul'].plan([Operand('si32', (1,)), Operand('si8', (1,))],
                      dict(multiplier=[2**14], shift=[14], out_dtypes=['si32']))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_requantize_kernel_equals_big_integers(data):
    dtype = data.draw(st.sampled_from(['si8', 'si16', 'si32']))
    out_dtype = data.draw(st.sampled_from(['si8', 'si16', 'si32']))
    values = data.draw(elements(dtype))
    multiplier, shift = quantize_multiplier(data.draw(st.floats(1e-9, 1e9)))
    relu = data.draw(st.booleans())
    attrs = dict(multiplier=[multiplier], shift=[shift], relu=relu, out_dtypes=[out_dtype])
    assert run('bpu.requantize', [tensor(values, dtype)], attrs).tolist() == [
        clamp(scaled(v, multiplier, shift), out_dtype, relu) for v in values]


def test_widening_with_the_same_scale_keeps_every_value():
    values = torch.arange(-128, 128).to(torch.int8)
    attrs = dict(multiplier=[2**14], shift=[14], relu=False, out_dtypes=['si16'])
    assert torch.equal(run('bpu.requantize', [values], attrs), values.to(torch.int16))


@pytest.mark.parametrize('shapes', [((3, 1, 4), (5, 1)), ((1,), (2, 3)), ((2, 3), ()),
                                    ((0, 3), (1, 3))])
def test_operands_broadcast_as_in_numpy(shapes):
    lhs, rhs = (np.random.randint(-100, 100, shape).astype(np.int8) for shape in shapes)
    inputs = [torch.as_tensor(lhs), torch.as_tensor(rhs)]
    total = run('bpu.add', inputs, add_attrs(dtype='si16')).numpy()
    assert np.array_equal(total, lhs.astype(np.int16) + rhs)
    product = run('bpu.mul', inputs, dict(multiplier=[2**14], shift=[14], out_dtypes=['si16']))
    assert np.array_equal(product.numpy(), lhs.astype(np.int16) * rhs)


def test_a_large_broadcast_is_covered_block_by_block():
    lhs = torch.randint(-128, 128, (2, BLOCK // 4, 9)).to(torch.int8)
    rhs = torch.randint(-128, 128, (2, 1, 9)).to(torch.int8)
    total = run('bpu.add', [lhs, rhs], add_attrs(dtype='si16'))
    assert torch.equal(total, (lhs.to(torch.int16) + rhs))


def test_relu_keeps_the_scale():
    assert KERNELS['bpu.relu']([tensor([-128, -1, 0, 127], 'si8')],
                               dict(out_dtypes=['si8']))[0].tolist() == [0, 0, 0, 127]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_max_and_min_choose_between_integers(data):
    dtype = data.draw(DTYPES)
    lhs, rhs = (data.draw(elements(dtype)) for _ in 'lr')
    inputs = [tensor(lhs, dtype).view(4, 1), tensor(rhs, dtype)]
    for op, choose in (('bpu.max', max), ('bpu.min', min)):
        result = run(op, inputs, dict(out_dtypes=[dtype]))
        assert result.dtype == TORCH_DTYPES[dtype]
        assert result.tolist() == [[choose(a, b) for b in rhs] for a in lhs]
