"""Weights rounded up or down as a product errs least."""
import itertools

import pytest
import torch

from mmdet_bpu.graph.scales import weight_scale
from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.rounding import round_best


def moments(groups, length, seed=0):
    """Second moments of columns that are alike, as those of images are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(groups, length, max(length // 3, 1), generator=generator)
    columns = (mix @ torch.randn(groups, mix.shape[2], 400, generator=generator)).relu()
    return columns @ columns.transpose(1, 2)


def weights(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def error(found, weight, products):
    off = (found - weight).double().view(len(products), len(weight) // len(products), -1)
    return torch.einsum('gij,gjk,gik->gi', off, products.double(), off).flatten()


@pytest.mark.parametrize('iterations', [0, 60])
def test_no_row_errs_more_than_rounded_to_the_nearest_and_most_err_less(iterations):
    weight, products = weights(16, 12, 3, 3), moments(1, 108)
    nearest = error(fake_quantize_weight(weight), weight, products)
    found = error(round_best(weight, products, iterations=iterations), weight, products)
    assert (found <= nearest * (1 + 1e-4)).all()
    assert found.sum() < 0.6 * nearest.sum()


def test_short_rows_are_near_the_best_of_all_choices():
    weight, products = weights(12, 7), moments(1, 7)
    scale, sums = weight_scale(weight), torch.zeros(3, dtype=torch.float64)
    for row, size, found in zip(weight, scale, round_best(weight, products, iterations=200)):
        below = (row / size).floor()
        choices = [torch.clamp(below + torch.tensor(up), -127, 127) * size
                   for up in itertools.product((0.0, 1.0), repeat=7)]
        best = min(error(choice[None], row[None], products).item() for choice in choices)
        nearest = error((row / size).round()[None] * size, row[None], products).item()
        chosen = error(found[None], row[None], products).item()
        assert best * (1 - 1e-5) <= chosen <= nearest * (1 + 1e-5)
        sums += torch.tensor([best, chosen, nearest])
    best, chosen, nearest = sums
    assert chosen <= best + 0.4 * (nearest - best)


@pytest.mark.parametrize('reach', [None, 0.6])
@pytest.mark.parametrize('groups', [1, 8])
def test_they_lie_on_the_grid_that_is_found_by_them(groups, reach):
    weight = weights(8, 5, 3, 3)
    weight[3] = 0
    reaches = None if reach is None else torch.full((8, ), reach)
    found = round_best(weight, moments(groups, 45), reaches, iterations=20)
    scale = weight_scale(weight, reach=reaches).view(-1, 1, 1, 1)
    integers = torch.round(found / scale)
    assert integers.abs().max() == 127
    assert ((found - weight).abs() <= scale * (1 + 1e-5))[weight.abs() < 126 * scale].all()
    again = fake_quantize_weight(found)
    assert torch.equal(torch.round(again / weight_scale(found).view(-1, 1, 1, 1)), integers)
    assert torch.equal(found[3], torch.zeros_like(found[3]))


def test_an_input_that_is_always_zero_leaves_the_nearest():
    weight = weights(4, 6)
    assert torch.allclose(round_best(weight, torch.zeros(1, 6, 6), iterations=5),
                          fake_quantize_weight(weight))
