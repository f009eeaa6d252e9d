"""Rounding, saturation and multipliers, against Fractions and Python's big integers."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import INTEGER_RANGES, integer_range
from mmdet_bpu.program.numerics import (broadcast_pair, quantize_multiplier,
                                        quantize_multipliers, requantize, saturate)

MULTIPLIERS = st.one_of(st.just(0), st.integers(2**14, 2**15 - 1),
                        st.integers(2**6, 2**7 - 1).map(lambda m: m << 8))
ACCUMULATORS = st.one_of(st.integers(-2**31, 2**31 - 1), st.integers(-300, 300),
                         st.sampled_from([-2**31, 2**31 - 1]),
                         st.integers(-2**15, 2**15).map(lambda a: a << 15))


def exact(acc: int, multiplier: int, shift: int) -> int:
    """Python rounds a Fraction half to even: the definition itself."""
    return round(Fraction(acc * multiplier) / Fraction(2)**shift)


def clamp(value: int, dtype: str, relu: bool = False) -> int:
    low, high = INTEGER_RANGES[dtype]
    return min(max(value, 0 if relu else low), high)


def test_the_published_multiplier_of_the_vendor_is_reproduced():
    assert quantize_multiplier(0.1 * 1.0 / 0.20284509658813477) == (32308, 16)


@given(st.floats(1e-30, 1e30))
def test_multiplier_is_the_nearest_with_15_bits(real):
    multiplier, shift = quantize_multiplier(real)
    assert 2**14 <= multiplier < 2**15
    error = abs(Fraction(multiplier) / Fraction(2)**shift - Fraction(real))
    assert error <= Fraction(real) / 2**15
    for neighbour in (multiplier - 1, multiplier + 1):
        assert error <= abs(Fraction(neighbour) / Fraction(2)**shift - Fraction(real))


@pytest.mark.parametrize('real, pair', [
    (0.0, (0, 0)), (1.0, (2**14, 14)), (2.0, (2**14, 13)), (2.0**20, (2**14, -6)),
    (1 - 2.0**-16, (2**14, 14)),   # tie rounds to even and carries into the next power of two
    (1 - 3 * 2.0**-16, (2**15 - 2, 15))])
def test_multiplier_of_special_ratios(real, pair):
    assert quantize_multiplier(real) == pair


@pytest.mark.parametrize('real', [-1.0, float('inf'), float('nan')])
def test_multiplier_refuses_what_is_no_ratio(real):
    with pytest.raises(BpuError, match='must be finite and not negative'):
        quantize_multiplier(real)


def test_multipliers_of_many_ratios_come_as_two_lists():
    assert quantize_multipliers(np.float32([1, 0, 4])) == ([2**14, 0, 2**14], [14, 0, 12])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ACCUMULATORS, MULTIPLIERS, st.integers(-40, 70)), min_size=1,
                max_size=6),
       st.sampled_from(['si8', 'si16', 'si32']), st.booleans())
def test_requantize_equals_big_integers_per_channel(channels, dtype, relu):
    acc, multipliers, shifts = (list(column) for column in zip(*channels))
    result = requantize(torch.tensor([acc], dtype=torch.int32), multipliers, shifts, dtype, relu)
    assert result[0].tolist() == [clamp(exact(*c), dtype, relu) for c in channels]


@pytest.mark.parametrize('dtype', ['si8', 'si16', 'si32'])
def test_saturate_reaches_and_keeps_both_ends(dtype):
    low, high = integer_range(dtype)
    values = torch.tensor([low - 1, low, high, high + 1])
    assert saturate(values, dtype).tolist() == [low, low, high, high]


def test_a_pair_of_lists_is_checked():
    with pytest.raises(BpuError, match='one length'):
        broadcast_pair([2**14], [1, 2])
    with pytest.raises(BpuError, match='multiplier 5 at index 1'):
        broadcast_pair([2**14, 5], [1, 2])


def test_unknown_element_type_is_named():
    with pytest.raises(BpuError, match="unknown element type 'ui16'"):
        integer_range('ui16')
