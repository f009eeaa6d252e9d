"""Requantization in compiled loops gives the reference's bits in every mode."""
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from mmdet_bpu.kernels.fast import requantize
from mmdet_bpu.kernels.fast.requantize import ScaleConstants, scale
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits
from tests.kernels.test_requantizer import exact, requantizations


@njit(['void(int32[:,::1], int64, int32[::1], int32[::1], int32[::1], int32, int32)'], cache=True)
def scale_rows(acc, mode, multiplier, shift, half, low, high):
    for row in range(len(acc)):
        for i in range(acc.shape[1]):
            k = i if len(multiplier) > 1 else 0
            acc[row, i] = scale(acc[row, i], mode, multiplier[k], shift[k], half[k], low, high)


def scaled(requantizer: Requantizer, rows: np.ndarray) -> np.ndarray:
    constants = ScaleConstants.of(requantizer)
    acc = np.array(rows, np.int32)
    scale_rows(acc, constants.mode, constants.multiplier, constants.shift, constants.half,
               constants.low, constants.high)
    return acc


@settings(max_examples=80, deadline=None)
@given(requantizations(), st.sampled_from(['si8', 'si16', 'si32']), st.booleans())
def test_every_mode_equals_big_integers(case, dtype, relu):
    multipliers, shifts, bound, rows = case
    low, high = output_limits(dtype, relu)
    result = scaled(Requantizer(multipliers, shifts, low, high, bound), rows)
    assert result.tolist() == [
        [exact(v, m, s, low, high) for v, m, s in zip(row, multipliers, shifts)] for row in rows]


def test_the_ends_of_every_range_reach_every_mode():
    seen = set()
    for bound in (2**7, 2**15, 2**23, 2**31):
        accs = np.unique([min(max(v + d, -bound), min(bound, 2**31 - 1))
                          for v in (-bound, 0, bound // 2, bound) for d in range(-40, 41)])
        for multiplier in (2**14, 2**14 + 1, 2**15 - 1):
            for shift in [*range(-33, 4, 6), *range(4, 48)]:
                requantizer = Requantizer(multiplier, shift, *output_limits('si16'), bound)
                expected = requantizer(torch.tensor(accs, dtype=torch.int32), 'si16')
                assert np.array_equal(scaled(requantizer, accs[None])[0], expected.numpy())
                seen.add(ScaleConstants.of(requantizer).mode)
    assert seen == {requantize.INT32_TIES, requantize.INT32, requantize.LEFT,
                    requantize.HALVES_TIES, requantize.HALVES, requantize.SPLIT,
                    requantize.INT64}
