"""The fast requantization paths give the bits of the definition, up to the ends of their range."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.kernels.reference.blocks import BLOCK
from mmdet_bpu.program.dtypes import INTEGER_RANGES
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits, round_shift_


def exact(acc: int, multiplier: int, shift: int, low: int, high: int) -> int:
    return min(max(round(Fraction(acc * multiplier) / Fraction(2)**shift), low), high)


MULTIPLIERS = st.one_of(st.just(0), st.sampled_from([2**14, 2**15 - 1]),
                        st.integers(2**14, 2**15 - 1),
                        st.integers(2**6, 2**7 - 1).map(lambda m: m << 8))


@st.composite
def requantizations(draw):
    """Multipliers, shifts, accumulators up to their bound and multiples of powers of two."""
    channels = draw(st.sampled_from([1, 2, 5]))
    bound = draw(st.sampled_from([128, 2**14, 2**15, 2**23, 2**24, 2**30, 2**31 - 1, 2**31]))
    base = draw(st.integers(-34, 50))
    shifts = [base + draw(st.integers(0, 2)) for _ in range(channels)]
    multipliers = [draw(MULTIPLIERS) for _ in range(channels)]
    top = min(bound, 2**31 - 1)
    value = st.one_of(st.sampled_from([-bound, top, 0, 1, -1]), st.integers(-bound, top),
                      st.integers(0, 24).flatmap(lambda k: st.integers(
                          -bound >> k, top >> k).map(lambda v: max(v << k, -bound))))
    rows = [[draw(value) for _ in range(channels)] for _ in range(3)]
    return multipliers, shifts, bound, rows


@settings(max_examples=250, deadline=None)
@given(requantizations(), st.sampled_from(['si8', 'si16', 'si32']), st.booleans())
def test_every_path_equals_big_integers(case, dtype, relu):
    multipliers, shifts, bound, rows = case
    low, high = output_limits(dtype, relu)
    requantizer = Requantizer(multipliers, shifts, low, high, bound)
    result = requantizer(torch.tensor(rows, dtype=torch.int32), dtype)
    assert result.tolist() == [
        [exact(v, m, s, low, high) for v, m, s in zip(row, multipliers, shifts)] for row in rows]


@pytest.mark.parametrize('bound, multiplier, shift, path, ties', [
    (2**7, 2**14 + 1, 20, 'int32', False),
    (2**7, 2**14, 18, 'int32', True),
    (2**15, 2**15 - 1, -2, 'int64', True),
    (2**15, 2**14, -1, 'int32', True),
    (2**23, 2**15 - 1, 30, 'halves', False),
    (2**31, 2**15 - 1, 30, 'halves', True),
    (2**31, 2**15 - 1, 17, 'int64', True),
    (2**31, 2**15 - 1, 46, 'halves', False)])
def test_the_path_follows_from_the_range(bound, multiplier, shift, path, ties):
    requantizer = Requantizer(multiplier, shift, *INTEGER_RANGES['si32'], bound)
    assert (requantizer.path, requantizer.ties) == (path, ties)
    ends = torch.tensor([-bound, -bound + 1, -1, 0, 1, min(bound, 2**31 - 1)], dtype=torch.int32)
    assert requantizer(ends, 'si32').tolist() == [
        exact(v, multiplier, shift, *INTEGER_RANGES['si32']) for v in ends.tolist()]


@pytest.mark.parametrize('multiplier', [2**14, 24576, 2**15 - 1, 2**14 + 2])
@pytest.mark.parametrize('shift', [17, 18, 19, 25])
def test_all_neighbours_of_ties_round_right(multiplier, shift):
    accs = torch.arange(-70000, 70000, 7, dtype=torch.int32)
    result = Requantizer(multiplier, shift, *INTEGER_RANGES['si32'], 2**31)(accs, 'si32')
    quotient, rest = np.divmod(accs.numpy().astype(np.int64) * multiplier, 1 << shift)
    half = 1 << shift - 1
    expected = quotient + ((rest > half) | ((rest == half) & (quotient % 2 == 1)))
    assert np.array_equal(result.numpy(), expected)


def test_a_tensor_of_many_chunks_is_covered():
    size = 3 * BLOCK // 2 + 5
    acc = torch.randint(-2**23, 2**23, (3, size, 1), dtype=torch.int32)
    expected = (acc.to(torch.int64) * 20001 + 2**26) >> 27
    assert torch.equal(Requantizer(20001, 27, -2**15, 2**15 - 1, 2**24)(acc, 'si16'),
                       expected.to(torch.int16))


@given(st.lists(st.integers(-2**29, 2**29), min_size=1), st.integers(0, 22))
def test_in_place_rounding_shift(values, bits):
    result = round_shift_(torch.tensor(values, dtype=torch.int32), bits)
    assert result.tolist() == [round(Fraction(v, 2**bits)) for v in values]
