"""Batch norms that stay live in training: torch's arithmetic, and the integers of folded ones."""
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import (finish_calibration, prepare, quantization_of, quantized_graphs,
                                    set_quant_state)
from mmdet_bpu.quantization.live_norms import LiveNorm, idle_parameters
from mmdet_bpu.quantization.norm_states import fold_parts, frozen_norms, live_paths, unfold_all
from mmdet_bpu.quantization.saved_norms import refuse_other_norms
from tests.stock_families import SHAPE as STOCK_SHAPE
from tests.stock_families import build

SHAPE = (8, 10)
IMAGES = torch.randn(4, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


def body(self, x):
    return self.head(F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))))


def parts(conv2=None, **norm):
    torch.manual_seed(2)
    conv2 = conv2 or nn.Conv2d(6, 8, 3, padding=1, bias=False)
    modules = dict(conv1=nn.Conv2d(3, 6, 3), norm1=nn.BatchNorm2d(6, **norm), conv2=conv2,
                   norm2=nn.BatchNorm2d(conv2.out_channels, **norm),
                   head=nn.Conv2d(conv2.out_channels, 4, 1))
    for name in ('norm1', 'norm2'):
        for tensor in modules[name].state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return modules


def prepared(toy, setting='live', modules=None, **settings):
    model = prepare(toy(body, **(modules or parts())), dict(
        stage='qat', input_shape=SHAPE, qat=dict(batch_norm=setting), **settings))
    return model


def live(toy, *args, **kwargs):
    """A live detector that quantizes, and what it gave before its norms were live."""
    model = prepared(toy, *args, **kwargs)
    set_quant_state(model, 'observe')
    model(IMAGES)
    finish_calibration(model)
    set_quant_state(model, 'quantize')
    folded = model(IMAGES)
    unfold_all(model)
    return model, folded


def train(model, steps=3):
    """Some steps that move weights, norms and statistics."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        model(IMAGES + step).square().mean().backward()
        optimizer.step()
    return model.eval()


def integers(model):
    """Text of a detector's integers, weights and biases included."""
    return print_text(lower_networks(quantized_graphs(model)).convert().result)


KINDS = {
    'plain': lambda: parts(),
    'biased': lambda: parts(nn.Conv2d(6, 8, 3, padding=1)),
    'grouped': lambda: parts(nn.Conv2d(6, 8, 3, groups=2, bias=False)),
    'transposed': lambda: parts(nn.ConvTranspose2d(6, 9, 3, 2, 1, 1, groups=3, bias=False)),
    'without parameters': lambda: parts(affine=False),
    'cumulative': lambda: parts(momentum=None),
}


@pytest.mark.parametrize('state', ['off', 'observe'])
@pytest.mark.parametrize('kind', KINDS)
def test_without_rounding_it_is_torchs_norm_with_its_gradients_and_statistics(toy, kind, state):
    stock = toy(body, **KINDS[kind]()).train()
    model = prepared(toy, modules=KINDS[kind]())
    unfold_all(model)
    set_quant_state(model, state)
    model.train()
    for _ in range(2):
        expected, found = stock(IMAGES), model(IMAGES)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    expected.square().sum().backward()
    found.square().sum().backward()
    for name in ('norm1', 'norm2'):
        norm, twin, conv = getattr(stock, name), getattr(model, name), name.replace('norm', 'conv')
        bias = getattr(stock, conv).bias
        torch.testing.assert_close(twin.running_mean + (0 if bias is None else bias),
                                   norm.running_mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(twin.running_var, norm.running_var, atol=1e-5, rtol=1e-4)
        assert twin.num_batches_tracked == norm.num_batches_tracked
        if norm.affine:
            for parameter in ('weight', 'bias'):
                torch.testing.assert_close(getattr(twin, parameter).grad,
                                           getattr(norm, parameter).grad, atol=2e-3, rtol=2e-3)
        else:
            assert not twin.weight.requires_grad and not twin.bias.requires_grad
    for module in (stock, model):
        module.eval()
    torch.testing.assert_close(model(IMAGES), stock(IMAGES), atol=2e-5, rtol=1e-4)


def test_a_weights_gradient_is_the_stock_one_in_other_units(toy):
    stock, model = toy(body, **parts()).train(), prepared(toy)
    unfold_all(model)
    model.train()
    for each in (stock, model):
        each(IMAGES).square().sum().backward()
    unit = model.norm2.unit.view(-1, 1, 1, 1)
    torch.testing.assert_close(model.conv2.weight.grad * unit, stock.conv2.weight.grad, atol=2e-3,
                               rtol=2e-3)


def test_training_rounds_the_folded_weight_and_normalises_by_the_batch(toy):
    model, _ = live(toy)
    seen = []
    model.conv2.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.conv2.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    norm = model.norm2
    with torch.no_grad():
        norm.running_var.mul_(1.7)  # not what the batch has
    weight, var = (t.detach().double().numpy() for t in (model.conv2.weight, norm.running_var))
    gamma, beta, unit = (t.detach().double().numpy() for t in (norm.weight, norm.bias, norm.unit))
    model.train()(IMAGES)
    s = gamma / np.sqrt(var + norm.eps)
    folded = weight * (s / unit)[:, None, None, None]
    scale = np.abs(folded).max((1, 2, 3), keepdims=True) / 127
    raw = np.round(folded / scale) * scale / s[:, None, None, None]
    z = F.conv2d(seen[0].double(), torch.tensor(raw), padding=1).numpy()
    mean, variance = z.mean((0, 2, 3), keepdims=True), z.var((0, 2, 3), keepdims=True)
    y = (z - mean) / np.sqrt(variance + norm.eps) * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(seen[1].double().numpy(), y, atol=1e-4)


@pytest.mark.parametrize('reach', ['minmax', 'mse'])
def test_live_half_folded_and_folded_have_the_same_integers(toy, reach):
    model, _ = live(toy, calibration=dict(weight_observer=reach))
    train(model)
    expected, program = model(IMAGES), integers(model)
    sites = [row for row in quantized_graphs(model)[0].rows]
    for globs, left in ((['conv1'], ['conv2']), (['*'], [])):
        assert list(fold_parts(model, globs)) == ['conv1' if left else 'conv2']
        assert live_paths(model) == left
        assert torch.equal(model(IMAGES), expected)
        assert integers(model) == program
        assert quantized_graphs(model)[0].rows == sites
    assert fold_parts(model, ['*']) == {}
    train(model)
    assert not torch.equal(model(IMAGES), expected)  # and folded ones train on


def test_live_ones_begin_at_the_calibrated_weights(toy):
    model, folded = live(toy)
    torch.testing.assert_close(model(IMAGES), folded, atol=0.05, rtol=0.0)
    conv, weight = model.conv2, model.conv2.weight.clone()
    fold_parts(model, ['*'])
    assert torch.equal(conv.weight, weight)


def test_channels_that_gamma_shuts_train_on(toy):
    """Zero, and so small that a step of the weight would be large beside it."""
    modules = parts()
    with torch.no_grad():
        modules['norm2'].weight[:2] = torch.tensor([0.0, 1e-8])
    model, folded = live(toy, modules=modules)
    torch.testing.assert_close(model(IMAGES), folded, atol=0.05, rtol=0.0)
    torch.testing.assert_close(model.norm2.unit[:2], torch.ones(2))
    before = model.conv2.weight[0].clone()
    train(model)
    assert not torch.equal(model.conv2.weight[0], before)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    with torch.no_grad():
        model.norm2.weight[3:5] = torch.tensor([0.0, 1e-30])  # on its way through 0
    train(model)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.norm2.running_var.min() > 0


def test_equalized_channels_take_their_gammas_along(toy):
    modules = parts()
    with torch.no_grad():
        modules['conv2'].weight[:, 1] *= 40
    stock = toy(body, **copy.deepcopy(modules)).train()
    model = prepared(toy, modules=modules, calibration=dict(equalize=True))
    unfold_all(model)
    set_quant_state(model, 'off')
    assert not torch.equal(model.norm1.weight, stock.norm1.weight)
    torch.testing.assert_close(model.train()(IMAGES), stock(IMAGES), atol=2e-4, rtol=1e-3)


def test_what_runs_again_counts_no_batch_twice(toy):

    def again(self, x):
        return checkpoint(lambda y: body(self, y), x, use_reentrant=False) if self.training \
            else body(self, x)

    found = []
    for function in (body, again):
        model = toy(function, **parts())
        model = prepare(model, dict(stage='qat', input_shape=SHAPE, qat=dict(batch_norm='live')))
        for state in ('observe', 'quantize'):
            set_quant_state(model, state)
            if state == 'observe':
                model(IMAGES)
                finish_calibration(model)
        unfold_all(model)
        train(model, steps=2)
        found.append(model.state_dict())
    assert found[0]['norm1.num_batches_tracked'] == 2
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name


def test_a_copy_has_norms_of_its_own(toy):
    model, _ = live(toy)
    model(IMAGES)
    twin = copy.deepcopy(model)
    before = model(IMAGES)
    train(twin)
    assert torch.equal(model(IMAGES), before) and not torch.equal(twin(IMAGES), before)
    fold_parts(twin, ['*'])
    assert live_paths(model) and not live_paths(twin)
    with pytest.raises(RuntimeError):
        twin.load_state_dict({})
    twin.load_state_dict(model.state_dict())
    assert live_paths(twin) == live_paths(model)
    assert torch.equal(twin(IMAGES), before)


def test_mixed_precision_rounds_in_float32(toy):
    model, _ = live(toy)
    model.train()
    expected = model(IMAGES).detach()
    with torch.autocast('cpu', torch.bfloat16):
        found = model(IMAGES)
    found.float().square().mean().backward()
    assert torch.isfinite(model.norm1.weight.grad).all() and model.conv1.weight.grad.abs().sum() > 0
    assert model.norm1.running_mean.dtype == torch.float32
    assert (found.float() - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_every_parameter_is_used_or_known_to_be_idle(toy):
    model, _ = live(toy)
    fold_parts(model, ['conv1'])
    model.train()(IMAGES).square().mean().backward()
    idle = {id(p) for p in idle_parameters(model)}
    names = {name for name, p in model.named_parameters() if id(p) in idle}
    assert names == {'norm1.weight', 'norm1.bias', 'conv2.bias'}
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused - {'anchor'} == names


class Frozen(nn.BatchNorm2d):
    """As a backbone under ``norm_eval`` leaves it."""

    def train(self, mode=True):
        return super().train(False)


def test_what_training_leaves_as_it_is_stays_folded(toy):
    modules = parts()
    modules['norm1'] = Frozen(6)
    model = prepared(toy, modules=modules)
    assert isinstance(model.norm2, LiveNorm) and frozen_norms(model) == ['norm1']
    modules = parts()
    modules.update(norm1=Frozen(6), norm2=Frozen(8))
    with pytest.raises(BpuError, match="batch_norm: expected 'folded' for .*: no batch norm"):
        prepared(toy, modules=modules)
    with pytest.raises(BpuError, match="bpu.qat.batch_norm.parts: 'neck.*' matches no convolution"):
        prepared(toy, dict(by='epoch', at=[1, 2], parts=['neck.*', '*']))


def test_a_run_goes_on_with_the_setting_that_it_was_begun_with(toy):
    stepwise, folded = prepared(toy), prepared(toy, 'folded')
    for model, other, words in ((stepwise, folded, 'folded from the start'),
                                (folded, stepwise, 'folded step by step')):
        refuse_other_norms(model, model.state_dict(), 'a.pth')
        with pytest.raises(BpuError, match=f'a.pth is of a run whose batch norms were {words}: '):
            refuse_other_norms(model, other.state_dict(), 'a.pth')
    modules = parts()
    modules['norm1'] = Frozen(6)
    with pytest.raises(BpuError, match='in which other batch norms were live: norm1'):
        refuse_other_norms(prepared(toy, modules=modules), stepwise.state_dict(), 'a.pth')


def test_a_detector_whose_levels_share_convolutions(calibrated, losses_of):
    """RTMDet: those of its heads have a norm a level and cannot fold; the others train live."""
    model = prepare(build('rtmdet'), dict(
        stage='qat', input_shape=STOCK_SHAPE, qat=dict(batch_norm='live'),
        calibration=dict(observer='minmax')))
    image = torch.randn(2, 3, *STOCK_SHAPE, generator=torch.Generator().manual_seed(3))
    model = calibrated(model, image)
    unfold_all(model)
    paths, shared = live_paths(model), frozen_norms(model)
    assert {path.partition('.')[0] for path in paths} == {'backbone', 'neck'}
    assert shared and all(path.startswith('bbox_head.') for path in shared)
    alone = model.get_submodule(shared[0])
    statistics, before = alone.running_mean.clone(), model.backbone.stem[0].bn.running_mean.clone()
    model.train()
    losses = losses_of(model, image)
    sum(value.sum() if torch.is_tensor(value) else sum(each.sum() for each in value)
        for name, value in losses.items() if 'loss' in name).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert torch.equal(alone.running_mean, statistics)
    assert not torch.equal(model.backbone.stem[0].bn.running_mean, before)
    program = integers(model.eval())
    assert set(fold_parts(model, ['backbone.*'])) < set(paths)
    assert integers(model) == program


def test_the_default_has_none(toy):
    model = prepare(toy(body, **parts()), dict(input_shape=SHAPE))
    assert not any('norm' in name for name in model.state_dict())
    assert not quantization_of(model).holds_norms
