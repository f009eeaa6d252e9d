"""Scales that move in training: their gradients, what they leave alone, and that they stay positive."""
import copy
import math

import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState
from mmdet_bpu.quantization.trained_scales import (FollowingScale, LearnedScale, build_quantizer,
                                                   check_quantizer, move_scales, steps_of, take_steps)
from mmdet_bpu.quantization.weight_reach import WeightReach

LOW, HIGH = -128, 127


class Quantization(torch.nn.Module):
    """As much of a detector's quantization as moving scales needs."""

    def __init__(self, **quantizers):
        super().__init__()
        self.quantizers = torch.nn.ModuleDict(quantizers)
        self.reach = WeightReach([])


def learned(scale, **kwargs):
    quantizer = LearnedScale('int8', **kwargs)
    quantizer.scale.fill_(scale)
    quantizer.state, quantizer.moving = QuantState.QUANTIZE, True
    return quantizer


def values(seed=0, size=(3, 5, 7), spread=40.0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def by_autograd(x, scale, weights, rectified, factor):
    """LSQ as its paper writes it (algorithm 1), in float64, of the scale's logarithm."""
    x = x.double().requires_grad_()
    step = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    shrunk = 1 / math.sqrt(x.numel() * HIGH)
    step_ = step * shrunk + (step - step * shrunk).detach()
    s = scale * factor * torch.exp(step_)
    v = (torch.relu(x) if rectified else x) / s
    v = v.clamp(LOW, HIGH)
    (((v.round() - v).detach() + v) * s * weights.double()).sum().backward()
    return x.grad, step.grad


@pytest.mark.parametrize('scale', [0.05, 0.4, 3.0])
@pytest.mark.parametrize('form, factor', [('forward', 1.0), ('on_grid', 2.0), ('rectified', 1.0)])
def test_gradients_are_those_of_the_paper(scale, form, factor):
    x, weights = values().requires_grad_(), values(1, spread=1.0)
    quantizer = learned(scale)
    run = getattr(quantizer, form)
    y = run(x, factor=factor) if form == 'on_grid' else run(x)
    plain = FakeQuantizer('int8', scale=scale)
    plain.state = QuantState.QUANTIZE
    run = getattr(plain, form)
    assert torch.equal(y, run(x, factor=factor) if form == 'on_grid' else run(x))
    (y * weights).sum().backward()
    of_x, of_step = by_autograd(x.detach(), scale, weights, form == 'rectified', factor)
    np.testing.assert_allclose(quantizer.step.grad, of_step, rtol=1e-4)
    # The paper's clamp passes up to the end of the range, ours up to half a step beyond it.
    exact = x.detach() / (scale * factor)
    apart = ((exact - LOW).abs() > 0.5) & ((exact - HIGH).abs() > 0.5)
    np.testing.assert_allclose(x.grad[apart], of_x[apart], rtol=1e-6)


def test_what_saturates_pulls_the_scale_and_infinities_give_no_nan():
    quantizer = learned(1.0)
    x = torch.tensor([1e4, math.inf, -math.inf, 0.0], requires_grad=True)
    quantizer(x).backward(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(quantizer.step.grad, (127 + 127 - 128) / math.sqrt(4 * 127), rtol=1e-6)
    assert x.grad.tolist() == [0, 0, 0, 1]


def test_learning_finds_the_scale_of_least_error_from_far_away():
    x = values(size=(64, 64), spread=1.0)

    def error(scale):
        return (torch.clamp((x / scale).round(), LOW, HIGH) * scale - x).square().sum().item()

    best = min((error(scale), scale) for scale in np.geomspace(0.003, 0.3, 200))[1]
    for start in (best * 8, best / 8):
        quantizer = learned(start)
        quant = Quantization(a=quantizer)
        trained = torch.optim.AdamW([quantizer.step], lr=0.05)
        for _ in range(150):
            trained.zero_grad()
            (quantizer(x) - x).square().sum().backward()
            trained.step()
            take_steps(quant)
            assert quantizer.scale.item() > 0
        assert best / 1.3 < quantizer.scale.item() < best * 1.3, start


def test_a_frozen_scale_stays_and_forgets_the_momentum_of_its_optimizer():
    quantizer = learned(0.5)
    quant = Quantization(a=quantizer)
    optimizer = torch.optim.AdamW([quantizer.step], lr=0.1)
    quantizer(values().requires_grad_()).sum().backward()
    optimizer.step()
    take_steps(quant)
    moved = quantizer.scale.item()
    assert moved != 0.5 and not quantizer.step.any()
    move_scales(quant, False)
    optimizer.step()
    assert quantizer.step.any()
    take_steps(quant)
    assert quantizer.scale.item() == moved and not quantizer.step.any()


def test_a_state_dict_is_that_of_a_fixed_scale_and_copies_do_not_share_steps():
    quantizer, plain = learned(0.25), FakeQuantizer('int8')
    assert list(quantizer.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(quantizer.state_dict())
    assert plain.scale.item() == 0.25
    plain.scale.fill_(2.0)
    quantizer.load_state_dict(plain.state_dict())
    assert quantizer.scale.item() == 2.0
    twin = copy.deepcopy(quantizer)
    assert twin.step is not quantizer.step and list(steps_of(Quantization(a=twin)))[0] is twin.step


def test_only_int8_without_a_fixed_scale_moves():
    assert type(build_quantizer('learned', 'int8', 'mse')) is LearnedScale
    assert type(build_quantizer(dict(type='following', constant=0.5), 'int8', 'mse')) is FollowingScale
    for dtype, scale in (('int16', None), ('int32', None), ('int8', 0.5)):
        assert type(build_quantizer('learned', dtype, 'mse', scale)) is FakeQuantizer
    assert type(build_quantizer('fixed', 'int8', 'mse')) is FakeQuantizer


def test_a_following_scale_is_the_moving_average_of_what_each_batch_gives():
    quantizer = FollowingScale('int8', 'minmax', constant=0.25)
    quantizer.scale.fill_(1.0)
    quantizer.state, quantizer.moving = QuantState.QUANTIZE, True
    quant, expected = Quantization(a=quantizer), 1.0
    for seed in range(3):
        x = values(seed).requires_grad_()
        before = quantizer.scale.clone()
        y = quantizer(x)
        assert torch.equal(quantizer.scale, before) and y.requires_grad
        largest = x.abs().max().item()
        take_steps(quant)
        expected += 0.25 * (largest / 127 - expected)
        np.testing.assert_allclose(quantizer.scale.item(), expected, rtol=1e-5)
    with torch.no_grad():  # a validation between two steps
        quantizer.eval()(values(9, spread=1e6))
    quantizer.train()
    take_steps(quant)
    np.testing.assert_allclose(quantizer.scale.item(), expected, rtol=1e-5)
    move_scales(quant, False)
    quantizer(values(9, spread=1e6).requires_grad_())
    take_steps(quant)
    np.testing.assert_allclose(quantizer.scale.item(), expected, rtol=1e-5)


def test_composites_run_at_once_unless_a_scale_inside_moves():
    quantizer = learned(0.5)
    assert not quantizer.rounds_alone
    with torch.no_grad():
        assert quantizer.rounds_alone
    quantizer.moving = False
    assert quantizer.rounds_alone and FakeQuantizer('int8').rounds_alone


@pytest.mark.parametrize('config, words', [
    ('learnt', "expected one of 'fixed', 'following', 'learned'"),
    (dict(kind='learned'), 'with one of them as its type'),
    (dict(type='learned', lr_mult=-1), 'lr_mult: expected a number from 0 on, found -1'),
    (dict(type='following', constant=0), 'constant: expected a number above 0 and up to 1, found 0'),
    (dict(type='fixed', lr_mult=1), 'fixed refuses its arguments.*lr_mult'),
    (dict(type='fixed', scale=0.5), 'fixed takes no scale, which rules decide'),
    (dict(type='learned', dtype='int8', observer='mse'), 'learned takes no dtype, observer')])
def test_bad_kinds_are_refused(config, words):
    with pytest.raises(BpuError, match=f'field here: .*{words}'):
        check_quantizer(config, 'here')
