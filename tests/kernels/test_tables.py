"""Table building and lookup against Fractions and exhaustive enumeration."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.table_fit import build_table, expand_table


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def inverse_sigmoid(x, eps=1e-5):
    x = x.clip(0, 1)
    return np.log(x.clip(eps, None) / (1 - x).clip(eps, None))


def lookup(attrs: dict, q: int) -> int:
    """The documented reading of a table, one Python integer at a time."""
    entries = [int(e) for e in attrs['entries']]
    if 'segment_start' not in attrs:
        return entries[q + 128]
    starts = [int(s) for s in attrs['segment_start']]
    segment = max(i for i, start in enumerate(starts) if start <= q)
    shift = int(attrs['segment_shift'][segment])
    index, offset = divmod(q - starts[segment], 1 << shift)
    y0, y1 = entries[segment * 64 + index], entries[segment * 64 + index + 1]
    return y0 + round(Fraction((y1 - y0) * offset, 1 << shift))


FUNCTIONS = {
    'sigmoid': (sigmoid, 8 / 2**15, 1 / 2**15, 1.0),
    'inverse_sigmoid': (inverse_sigmoid, 1 / 2**15, 12 / 2**15, 1.0),
    'exp of softmax': (lambda x: np.exp(np.minimum(x, 0)), 12 / 2**15, 1 / 32767, 1.0),
    'reciprocal': (lambda x: 1 / np.maximum(x, 0.5), 300 / 2**15, 2 / 2**15, 1.0),
    'rsqrt': (lambda x: 1 / np.sqrt(np.maximum(x, 0) + 0.01), 4 / 2**15, 10 / 2**15, 1.5),
    'gelu-like': (lambda x: x * sigmoid(1.702 * x), 6 / 2**15, 6 / 2**15, 1.0),
    'step': (np.sign, 1 / 2**15, 1 / 2**15, 0.5),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_si16_tables_of_the_models_functions_are_within_an_lsb_or_so(name):
    function, in_scale, out_scale, limit = FUNCTIONS[name]
    table = build_table(function, 'si16', in_scale, 'si16', out_scale)
    codes = np.arange(-2**15, 2**15)
    with np.errstate(all='ignore'):
        exact = (function(codes * in_scale) / out_scale).clip(-2**15, 2**15 - 1)
    values = expand_table(table.attrs)
    assert table.max_error == np.abs(values - exact).max() <= limit
    assert len(table.attrs['segment_start']) <= 64


@pytest.mark.parametrize('name', FUNCTIONS)
def test_expanded_tables_equal_the_documented_reading(name):
    function, in_scale, out_scale, _ = FUNCTIONS[name]
    attrs = build_table(function, 'si16', in_scale, 'si16', out_scale).attrs
    values = expand_table(attrs)
    codes = [*range(-2**15, 2**15, 97), 2**15 - 1]
    for start in attrs['segment_start']:
        codes += [int(start), max(int(start) - 1, -2**15)]
    assert [int(values[q + 2**15]) for q in codes] == [lookup(attrs, q) for q in codes]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 62), max_size=40))
def test_interpolation_rounds_half_to_even_in_every_segment(seed, splits):
    segments = [(0, 10)]
    for choice in splits:  # split random segments in halves
        start, shift = segments.pop(choice % len(segments))
        if shift:
            segments += [(start, shift - 1), (start + (64 << shift - 1), shift - 1)]
        else:
            segments.append((start, shift))
    segments.sort()
    rng = np.random.default_rng(seed)
    attrs = {'segment_start': np.array([s for s, _ in segments]) - 2**15,
             'segment_shift': np.array([k for _, k in segments]),
             'entries': rng.integers(-2**15, 2**15, 64 * len(segments) + 1)}
    values = expand_table(attrs)
    codes = rng.integers(-2**15, 2**15, 300).tolist() + [-2**15, 2**15 - 1]
    assert [int(values[q + 2**15]) for q in codes] == [lookup(attrs, q) for q in codes]


def test_a_straight_line_needs_one_segment():
    table = build_table(lambda x: x, 'si16', 1.0, 'si16', 2.0)
    assert table.attrs['segment_shift'].tolist() == [10]
    assert table.max_error == 0.5
    assert np.array_equal(expand_table(table.attrs), np.rint(np.arange(-2**15, 2**15) / 2))


def test_no_other_choice_of_aligned_segments_has_a_smaller_error():
    """Exhaustive on the rule: each kept segment but the last split has an error of the maximum
    or less, and every split segment's own error exceeds it."""
    table = build_table(lambda x: 1 / np.maximum(x, 1e-3), 'si16', 1 / 2**15, 'si16', 1 / 32)
    codes = np.arange(-2**15, 2**15)
    exact = (1 / np.maximum(codes / 2**15, 1e-3) * 32).clip(-2**15, 2**15 - 1)
    rounded = np.append(np.rint(exact), np.rint(32 * 1.0))
    starts = table.attrs['segment_start'] + 2**15
    parents = {(int(start) >> 6 + k << 6 + k, k) for start, shift in
               zip(starts, table.attrs['segment_shift']) for k in range(int(shift) + 1, 11)}
    for start, shift in parents:
        nodes = np.arange(start, start + (64 << shift) + 1, 1 << shift)
        line = np.interp(np.arange(start, start + (64 << shift)), nodes, rounded[nodes])
        error = np.abs(line - exact[start:start + (64 << shift)]).max()
        assert error > table.max_error - 0.5  # the line before its rounding


@pytest.mark.parametrize('out_dtype', ['si8', 'si16'])
def test_si8_tables_hold_the_nearest_value_saturated(out_dtype):
    table = build_table(np.exp, 'si8', 0.1, out_dtype, 0.05)
    low, high = INTEGER_RANGES[out_dtype]
    exact = np.exp(np.arange(-128, 128) * 0.1) / 0.05
    assert np.array_equal(table.attrs['entries'], np.rint(exact).clip(low, high))
    assert table.max_error == np.abs(np.rint(exact.clip(low, high)) - exact.clip(low, high)).max()


def test_ties_of_a_table_go_to_even():
    entries = build_table(lambda x: x / 2, 'si8', 1.0, 'si8', 1.0).attrs['entries']
    assert entries[128 + np.array([-3, -1, 1, 3, 5])].tolist() == [-2, 0, 0, 2, 2]


def test_infinities_saturate_and_what_is_no_number_is_refused():
    entries = build_table(lambda x: 1 / x, 'si8', 1.0, 'si8', 0.01).attrs['entries']
    assert (entries[128], entries[127]) == (127, -100)
    with pytest.raises(BpuError, match='not a number at x = -128'):
        build_table(np.sqrt, 'si8', 1.0, 'si8', 1.0)


@pytest.mark.parametrize('arguments, message', [
    (('si32', 1.0, 'si8', 1.0), 'found si32 to si8'),
    (('si8', 0.0, 'si8', 1.0), 'input scale of a table must be positive'),
    (('si8', 1.0, 'si8', float('inf')), 'output scale of a table must be positive')])
def test_bad_types_and_scales_are_refused(arguments, message):
    with pytest.raises(BpuError, match=message):
        build_table(np.tanh, *arguments)


def test_a_function_that_changes_the_shape_is_refused():
    with pytest.raises(BpuError, match='element by element'):
        build_table(np.sum, 'si8', 1.0, 'si8', 1.0)


@pytest.mark.parametrize('in_dtype', ['si8', 'si16'])
@pytest.mark.parametrize('out_dtype', ['si8', 'si16'])
def test_the_kernel_looks_up_every_code(in_dtype, out_dtype):
    low, high = INTEGER_RANGES[in_dtype]
    attrs = build_table(sigmoid, in_dtype, 8 / high, out_dtype,
                        1 / INTEGER_RANGES[out_dtype][1]).attrs
    attrs['out_dtypes'] = [out_dtype]
    codes = torch.arange(low, high + 1).flip(0).reshape(2, -1).to(
        torch.int8 if in_dtype == 'si8' else torch.int16)
    prepared = KERNELS['bpu.table'].plan([Operand.of(codes)], attrs)
    for result in (KERNELS['bpu.table']([codes], attrs)[0], prepared([codes])[0]):
        assert np.array_equal(result.numpy().ravel(), expand_table(attrs)[::-1])
    strided = codes.t()
    assert torch.equal(prepared([strided])[0], result.t())


GOOD = build_table(sigmoid, 'si16', 8 / 2**15, 'si16', 1 / 2**15).attrs


@pytest.mark.parametrize('change, message', [
    ({'entries': GOOD['entries'][:-1]}, r'\d+ entries, found'),
    ({'segment_start': GOOD['segment_start'] + 64}, 'tile the si16 range'),
    ({'segment_shift': GOOD['segment_shift'] - 1}, r'shifts must be in \[0, 10\]|tile'),
    ({'segment_shift': GOOD['segment_shift'][:-1]}, 'each with a start and a shift')])
def test_a_malformed_table_is_refused(change, message):
    with pytest.raises(BpuError, match=message):
        expand_table({**GOOD, **change})


def test_a_table_must_fit_its_types():
    with pytest.raises(BpuError, match='cannot be read with si8'):
        KERNELS['bpu.table'].plan([Operand('si8', (1,))], {**GOOD, 'out_dtypes': ['si16']})
    with pytest.raises(BpuError, match='leave si8'):
        KERNELS['bpu.table'].plan([Operand('si16', (1,))], {**GOOD, 'out_dtypes': ['si8']})
    with pytest.raises(BpuError, match='256 entries, found 3'):
        expand_table({'entries': [1, 2, 3]})
