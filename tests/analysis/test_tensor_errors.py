"""Errors of a tensor, against sums in exact fractions."""
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdet_bpu.analysis.level_histograms import BINS_BEYOND, LevelHistograms, bounds
from mmdet_bpu.analysis.tensor_errors import HIGHEST, LOWEST, Distance, Grid, TensorErrors

INT8 = Grid(0.5, -128, 127)


def exact_sqnr(pairs):
    signal = sum(Fraction(x)**2 for x, _ in pairs)
    noise = sum((Fraction(x) - Fraction(y))**2 for x, y in pairs)
    return 10 * math.log10(signal / noise)


def rounded(x, grid):
    return torch.div(x, grid.scale).round().clamp(grid.low, grid.high) * grid.scale


def errors_of(*images, grid=INT8, reference=None):
    errors = TensorErrors(grid)
    for index, given in enumerate(images):
        float_side = given if reference is None else reference[index]
        errors.add(index, float_side, given, rounded(given, grid))
    return errors


def test_the_ratio_and_the_cosine_are_those_of_exact_sums_over_all_images():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(2, 3, 4, generator=generator) * 9 for _ in range(3)]
    references = [image + torch.randn(image.shape, generator=generator) for image in images]
    row = errors_of(*images, reference=references).row()
    pairs = [(x.item(), y.item()) for image in images
             for x, y in zip(image.flatten(), rounded(image, INT8).flatten())]
    assert row['sqnr_db'] == pytest.approx(exact_sqnr(pairs), rel=1e-12)
    other = [(x.item(), y) for image, (_, y) in zip(torch.cat([r.flatten() for r in references]), pairs)
             for x in [image]]
    assert row['accumulated_sqnr_db'] == pytest.approx(exact_sqnr(other), rel=1e-12)
    dot, a, b = (sum(Fraction(p) * Fraction(q) for p, q in each) for each in (
        pairs, [(x, x) for x, _ in pairs], [(y, y) for _, y in pairs]))
    assert row['cosine'] == pytest.approx(float(dot) / math.sqrt(a * b), rel=1e-12)
    assert row['max_lsb'] == pytest.approx(max(abs(x - y) for x, y in pairs) / 0.5)


def test_saturation_is_counted_on_each_side_and_infinities_count_as_that_alone():
    given = torch.tensor([-64.26, -64.24, 63.74, 63.76, math.inf, -math.inf, 1.0, 2.0])
    row = errors_of(given).row()
    assert (row['saturated_below'], row['saturated_above']) == (2 / 8, 2 / 8)
    assert row['saturated'] == 4 / 8
    assert row['max_lsb'] == pytest.approx(0.52, abs=1e-4)  # infinities would be the largest


def test_values_that_become_zero_are_a_share_of_those_that_are_not():
    row = errors_of(torch.tensor([0.0, 0.0, 0.1, -0.2, 0.3, 5.0])).row()
    assert row['zeroed'] == 2 / 4


def test_one_loud_channel_hides_the_noise_of_the_others_from_the_tensor_s_ratio():
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(64, 8, generator=generator)
    given[:, 3] *= 1000
    grid = Grid(given.abs().max().item() / 127, -128, 127)
    row = errors_of(given, grid=grid).row()
    assert row['sqnr_db'] > 30 > 5 > row['channel_sqnr_db']


def test_the_typical_channel_is_the_median_of_those_that_hold_anything():
    given = torch.zeros(2, 4)
    given[:, 1], given[:, 2], given[:, 3] = 10.1, 20.2, 40.05
    row = errors_of(given).row()
    ratios = sorted(exact_sqnr([(x, y)] * 2) for x, y in zip(
        given[0, 1:].tolist(), rounded(given, INT8)[0, 1:].tolist()))
    assert row['channel_sqnr_db'] == pytest.approx(ratios[1], rel=1e-9)
    assert (row['dead_channels'], row['channels']) == (1, 4)


def test_the_worst_image_is_the_one_with_the_lowest_accumulated_ratio():
    images = [torch.full((4, ), 8.0)] * 3
    references = [torch.full((4, ), value) for value in (8.5, 12.0, 8.0)]
    assert errors_of(*images, reference=references).row()['worst_image'] == 1


def test_a_tensor_without_noise_has_no_ratio_and_one_without_signal_the_lowest():
    exact, dead = Distance(), Distance()
    exact.add(torch.ones(2).double(), torch.ones(2).double())
    dead.add(torch.zeros(2).double(), torch.ones(2).double())
    assert exact.sqnr is None and exact.cosine == 1
    assert dead.sqnr == LOWEST and dead.cosine is None
    almost = Distance()
    almost.add(torch.ones(1).double(), torch.ones(1).double() + 1e-15)
    assert almost.sqnr == HIGHEST


@pytest.mark.parametrize('grid', [INT8, Grid(0.01, -32768, 32767)])
def test_histograms_are_those_of_the_values_before_and_after_rounding(grid):
    span = grid.high * grid.scale
    given = torch.cat([torch.linspace(-1.3 * span, 1.3 * span, 5001),
                       torch.tensor([math.inf, -math.inf, math.nan, 0.0])])
    histograms = LevelHistograms(grid)
    histograms.add(given[:2000])
    histograms.add(given[2000:].view(5, -1))
    plain = histograms.as_plain()
    edges = np.array(bounds(plain))
    assert edges[BINS_BEYOND] == grid.low - 0.5 and edges[-BINS_BEYOND - 1] == grid.high + 0.5
    edges[[0, -1]] = -np.inf, np.inf
    finite = given[~given.isnan()]
    for side, values in (('before', finite), ('after', rounded(finite, grid))):
        expected = np.histogram(values.double().numpy() / grid.scale, edges)[0]
        assert plain[side] == expected.tolist(), side
    assert sum(plain['before']) == sum(plain['after']) == 5004
    assert plain['after'] != plain['before']
