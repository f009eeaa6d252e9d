"""Reaches of weights that are learned: gradients, where they end, and what a checkpoint holds of them."""
import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.weight_layout import channels_exchanged
from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.learned_reach import SMALLEST, LearnedReach, build_reach, rate_of_reach
from mmdet_bpu.quantization.trained_scales import move_scales, steps_of, take_steps
from mmdet_bpu.quantization.weight_reach import WeightReach

NAME = 'layer.weight'


def network_of(weight, observers=(), groups=None):
    """As much of a quantized graph of one product as its weight's reach needs."""
    op = SimpleNamespace(kind='conv2d' if groups is None else 'conv_transpose2d', inputs=['x', 'w'],
                         params={'groups': groups})
    graph = SimpleNamespace(ops=[op], values={'w': SimpleNamespace(data=weight)})
    return SimpleNamespace(graph=graph, weight_name=lambda op: NAME, weight_observers=dict(observers))


class Quantization(torch.nn.Module):
    """As much of a detector's quantization as moving reaches needs."""

    def __init__(self, weight, groups=None, lr_mult=1.0):
        super().__init__()
        self.quantizers = torch.nn.ModuleDict()
        self.reach = build_reach(network_of(weight, groups=groups), dict(type='learned', lr_mult=lr_mult))
        move_scales(self, True)


def values(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def by_autograd(weight, reach, direction):
    """LSQ as its paper writes it (algorithm 1) for each channel, in float64, of the scale's logarithm.

    Its clamp passes up to the end of the range; here as ours, up to half a step beyond it.
    """
    rows = weight.double().flatten(1).requires_grad_()
    step = torch.zeros(len(rows), dtype=torch.float64, requires_grad=True)
    shrunk = 1 / math.sqrt(rows.shape[1] * 127)
    magnitude = rows.detach().abs().amax(1) * reach.double() / 127
    scale = (magnitude * torch.exp(step * shrunk + (step - step * shrunk).detach())).unsqueeze(1)
    exact = rows / scale
    clamped = exact.clamp(-128, 127)
    exact = torch.where(exact.round() == clamped.round(), exact, clamped)
    (((exact.round() - exact).detach() + exact) * scale * direction.double().flatten(1)).sum().backward()
    return rows.grad.view_as(weight), step.grad


@pytest.mark.parametrize('reach', [1.0, 0.6, 0.03])
@pytest.mark.parametrize('size, groups', [((5, 4, 3, 3), None), ((6, 7), None), ((4, 3, 2, 2), 2)])
def test_gradients_are_those_of_the_paper(reach, size, groups):
    weight, direction = values(*size).requires_grad_(), values(*size, seed=1)
    quant = Quantization(weight, groups)
    of_channel, step = quant.reach.of(NAME), next(steps_of(quant))
    of_channel.mul_(reach)
    found = quant.reach.rounded(weight, 'int8', groups, NAME)
    assert torch.equal(found, fake_quantize_weight(weight, 'int8', groups, of_channel))
    (found * direction).sum().backward()
    first = (lambda w: w) if groups is None else (lambda w: channels_exchanged(w, groups))
    of_weight, of_step = by_autograd(first(weight.detach()), of_channel, first(direction))
    np.testing.assert_allclose(step.grad, of_step, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(first(weight.grad), of_weight, rtol=1e-6)


def test_learning_leaves_an_outlier_out_where_that_errs_less_and_stays_whole_elsewhere():
    weight = values(2, 40000) * 0.01
    weight[0, 0] = 0.08  # 8 spreads
    weight[1] = 0.02 * weight[1].sign()
    quant = Quantization(weight)
    of_channel, trained = quant.reach.of(NAME), torch.optim.Adam(steps_of(quant), lr=0.02)

    def error():
        with torch.no_grad():
            return (quant.reach.rounded(weight, 'int8', None, NAME) - weight).square().sum(1)

    whole = error()
    for _ in range(200):
        trained.zero_grad()
        found = quant.reach.rounded(weight.requires_grad_(), 'int8', None, NAME)
        (found - weight.detach()).square().sum().backward()
        trained.step()
        take_steps(quant)
        assert not next(steps_of(quant)).any()
    assert of_channel[0] < 0.99 and error()[0] < whole[0]
    assert of_channel[1] == 1.0


def test_a_reach_stays_between_its_ends_and_a_frozen_one_forgets_the_momentum():
    quant = Quantization(values(3, 8))
    step, of_channel = next(steps_of(quant)), quant.reach.of(NAME)
    step.data[:] = torch.tensor([-1e3, 1e3, -math.log(2)])
    take_steps(quant)
    np.testing.assert_allclose(of_channel, [SMALLEST, 1.0, 0.5])
    move_scales(quant, False)
    step.data[:] = -1.0
    take_steps(quant)
    np.testing.assert_allclose(of_channel, [SMALLEST, 1.0, 0.5])
    assert not step.any()
    found = quant.reach.rounded(values(3, 8).requires_grad_(), 'int8', None, NAME)
    found.sum().backward()
    assert step.grad is None


def test_a_state_dict_holds_reaches_alone_and_copies_share_no_steps():
    quant = Quantization(values(3, 8))
    plain = WeightReach([network_of(values(3, 8), {NAME: 'mse'})])
    assert list(quant.reach.state_dict()) == list(plain.state_dict())
    plain.of(NAME).fill_(0.25)
    next(steps_of(quant)).data.fill_(1.0)
    quant.reach.load_state_dict(plain.state_dict())
    assert (quant.reach.of(NAME) == 0.25).all() and not next(steps_of(quant)).any()
    twin = copy.deepcopy(quant)
    assert next(steps_of(twin)) is not next(steps_of(quant))


def test_what_a_calibration_has_chosen_goes_on():
    network = network_of(values(3, 8), {NAME: 'mse'})
    reach = build_reach(network, 'learned')
    assert isinstance(reach, LearnedReach) and not reach.given and reach.lr_mult == 10.0
    assert network.weight_observers == {NAME: 'mse'}
    network = network_of(values(3, 8))
    assert build_reach(network, 'learned').given == (NAME, )
    assert network.weight_observers == {NAME: 'minmax'}
    assert type(build_reach(network_of(values(3, 8)), 'fixed')) is WeightReach


@pytest.mark.parametrize('how, words', [
    ('moving', "expected 'fixed', 'learned', or a dict"), (dict(lr_mult=1.0), 'found None'),
    (dict(type='learned', lr_mult=True), 'weight_reach.lr_mult: expected a number from 0 on, found True')])
def test_other_settings_are_refused(how, words):
    with pytest.raises(BpuError, match=words):
        rate_of_reach(how)
