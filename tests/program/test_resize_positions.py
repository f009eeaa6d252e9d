"""Positions of a resize in fixed point: torch's pixels exactly, and an error that is bounded."""
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.program.resize_positions import (FRACTION_BITS, POSITION_BITS, axis_positions,
                                                fixed_point, nearest_positions)


def torch_pixels(pixels, mode='nearest', **resize):
    line = torch.arange(pixels, dtype=torch.float32).view(1, 1, pixels, 1)
    return F.interpolate(line, mode=mode, **resize)[0, 0, :, 0].to(torch.int64).tolist()


def taken(size, pixels, step):
    start, stride = nearest_positions(pixels, size, step)
    return axis_positions(start, stride, len(pixels), POSITION_BITS, 0, size).tolist()


@pytest.mark.parametrize('mode', ['nearest', 'nearest-exact'])
@pytest.mark.parametrize('size', [1, 2, 3, 5, 7, 8, 12, 13, 20, 33, 64, 100, 167, 334, 1333])
def test_target_sizes_give_the_pixels_of_torch(size, mode):
    for count in [*range(1, 50), 2 * size - 1, 2 * size, 2 * size + 1, 200, 800]:
        pixels = torch_pixels(size, mode, size=(count, 1))
        assert taken(size, pixels, size / count) == pixels, count


@pytest.mark.parametrize('factor', [0.3, 0.5, 0.7, 1.1, 1.5, 1.7, 2.0, 3.0, 5.9, 8.0])
def test_factors_give_the_pixels_of_torch(factor):
    for size in (1, 2, 5, 13, 40, 100, 167):
        if int(size * factor):
            pixels = torch_pixels(size, scale_factor=(factor, 1))
            assert taken(size, pixels, 1 / factor) == pixels, size


def test_where_torch_itself_keeps_no_step_there_are_no_positions():
    """In float32, 23 x (100 / 230) is below 10 and 69 x (100 / 230) is 30."""
    pixels = torch_pixels(100, scale_factor=(2.3, 1))
    assert {pixels[23] - 10, pixels[46] - 20, pixels[69] - 30, pixels[92] - 40} == {-1, 0}
    assert nearest_positions(pixels, 100, 1 / 2.3) is None


def test_doubling_starts_at_the_first_pixel_with_a_step_of_half_a_pixel():
    assert nearest_positions([0, 0, 1, 1, 2, 2], 3, 0.5) == (0, 2**19)


@pytest.mark.parametrize('pixels', [[0, 2, 1, 3], [0, 3, 3, 3, 5]])
def test_pixels_without_one_step_have_no_positions(pixels):
    assert nearest_positions(pixels, 10, 1.0) is None


@settings(max_examples=80, deadline=None)
@given(st.integers(-2**24, 2**24), st.integers(-2**22, 2**22), st.integers(1, 30),
       st.integers(1, 40), st.integers(0, FRACTION_BITS))
def test_positions_are_the_exact_ones_rounded_once(start, step, count, size, bits):
    found = axis_positions(start, step, count, POSITION_BITS, bits, size)
    for i, position in enumerate(found.tolist()):
        exact = Fraction(start + i * step, 2**(POSITION_BITS - bits))
        rounded = round(exact) if bits else exact.numerator // exact.denominator
        assert position == min(max(rounded, 0), (size - 1) * 2**bits)


@pytest.mark.parametrize('size, count', [(100, 4096), (167, 334), (3, 1000), (1333, 800), (7, 7)])
def test_bilinear_positions_stay_within_the_bound_that_keeps_results_within_one_lsb(size, count):
    """Two values of si8 are 255 apart at most: 2 axes x 255 x error < 1 LSB."""
    step = size / count
    start = step / 2 - 0.5
    found = axis_positions(fixed_point(start), fixed_point(step), count, POSITION_BITS,
                           FRACTION_BITS, size)
    exact = np.clip(start + np.arange(count) * step, 0, size - 1)
    error = np.abs(found / 2**FRACTION_BITS - exact).max()
    assert error <= 2.0**-(FRACTION_BITS + 1) + (count + 1) * 2.0**-(POSITION_BITS + 1)
    assert 2 * 255 * error < 1.3 if count == 4096 else 2 * 255 * error < 1
