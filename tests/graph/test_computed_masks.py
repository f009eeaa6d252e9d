"""Choices by masks that depend on the image: captured bit for bit, and the same on integers."""
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import deploy_graph

SHAPE = (4, 6)


def pair(x):
    """Two tensors that differ, and are equal in places."""
    return x, torch.cat([x[..., :2], x[..., 2:].flip(-1)], -1)


CHOICES = {
    'greater': lambda x, y: torch.where(x > y, x, y),
    'less': lambda x, y: torch.where(torch.lt(x, y), x, y),
    'greater or equal': lambda x, y: torch.where(x.ge(y), x, -y),
    'less or equal': lambda x, y: torch.where(x <= y, x, -y),
    'sign': lambda x, y: torch.where(x > 0, x, y),
    'a number': lambda x, y: torch.where(x >= 0.25, x, y),
    'or': lambda x, y: torch.where((x > y) | (x < 0.1), x, y),
    'and': lambda x, y: torch.where((x > y) & (y > 0.1), x, y),
    'not': lambda x, y: torch.where(~(x > y), x, y),
    'nested': lambda x, y: torch.where(~((x > y) | ~(y > 0.1)), x, y),
    'broadcast': lambda x, y: torch.where((x[:, :1] > y[:, :1]).expand_as(x), x, y),
    'rank': lambda x, y: torch.where(x[0, 0] > y[0, 0], x, y),
    'number chosen': lambda x, y: torch.where(x > y, 0.5, y),
    'number elsewhere': lambda x, y: torch.where(x > y, x, 0.5),
    'fill': lambda x, y: (x * 1.0).masked_fill(x > y, -0.25),
}


@pytest.mark.parametrize('name', CHOICES)
def test_a_choice_runs_on_integers_as_training_rounds(through, name):
    run = through(lambda self, x: CHOICES[name](*pair(x)))
    assert 'where' in run.instructions
    assert {'positive', 'not_negative'} & set(run.instructions)
    assert run.comparison['max_lsb'] <= 1


@pytest.mark.parametrize('mask', [lambda x: x > 0.1, lambda x: (x > 0.1) | (x < 0)])
def test_a_mask_that_another_function_reads_is_refused(toy, mask):
    with pytest.raises(BpuError, match='slice of a mask that depends on the image'):
        deploy_graph(toy(lambda self, x: torch.where(mask(x)[..., 1:], x[..., 1:], 0.5)), SHAPE)


def test_a_choice_between_numbers_is_refused(toy):
    with pytest.raises(BpuError, match='a choice between constants'):
        deploy_graph(toy(lambda self, x: torch.where(x > 0.1, 1.0, 0.5)), SHAPE)


@pytest.mark.parametrize('function', [torch.var, torch.std])
@pytest.mark.parametrize('options', [dict(dim=1), dict(dim=(2, 3), keepdim=True),
                                     dict(dim=1, unbiased=False), dict(dim=1, correction=2)])
def test_variances_run_on_integers(through, function, options):
    run = through(lambda self, x: function(x, **options) * 1.0)
    assert run.comparison['max_lsb'] <= 1


def test_the_deviation_of_what_is_centred_already_runs_on_integers(through):
    """As in RepPoints: the second mean is nothing but rounding."""
    run = through(lambda self, x: torch.std(x - x.mean(1, keepdim=True), dim=1, keepdim=True))
    assert run.comparison['max_lsb'] <= 1
