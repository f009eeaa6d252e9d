"""Weights of a block rounded together: which blocks, that they err less, and what stays as it was."""
import copy

import pytest
import torch
from torch import nn

from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.block_rounding import BlockRounding
from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.repairs import repair_calibrated, watch_products
from mmdet_bpu.quantization.weight_choices import SoftWeight

SHAPE = (8, 12)
IMAGES = [torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(seed)).abs()
          for seed in (4, 5)]
FORWARDS = [lambda detector, image=image: detector(image) for image in IMAGES]


class Residual(nn.Module):
    """Two convolutions around a relu that overwrites, and their input."""

    def __init__(self, channels):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu_(self.b(torch.relu_(self.a(x))) + x)


def network(detector, image):
    x = detector.first(image)
    x = detector.second(x=detector.twice(detector.twice(x)))
    return detector.last(x.flatten(2).transpose(1, 2))


@pytest.fixture
def model(toy):
    torch.manual_seed(3)
    return toy(network, first=nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True),
                                            nn.Conv2d(8, 8, 3, padding=1)),
               twice=Residual(8), second=Residual(8), last=nn.Linear(8, 5))


def repaired(model, calibrated, forwards=FORWARDS, **adaround):
    """Lines of progress of a calibrated model that was repaired."""
    calibrated(prepare(model, dict(input_shape=SHAPE, calibration=dict(
        adaround=dict(dict(by='block', iterations=60, batches=2), **adaround)))), torch.cat(IMAGES))
    quant, lines = quantization_of(model), []
    inputs = watch_products(quant)
    with inputs.watching(quant):
        for forward in FORWARDS:
            forward(model)
    repair_calibrated(model, quant, inputs, forwards, lines.append)
    quant.set_state('quantize')
    return lines


def results(model, *paths):
    """What modules give back in the forwards, one after the other."""
    found = {path: [] for path in paths}
    hooks = [model.get_submodule(path).register_forward_hook(
        lambda module, args, result, path=path: found[path].append(result.clone())) for path in paths]
    with torch.no_grad():
        for forward in FORWARDS:
            forward(model)
    for hook in hooks:
        hook.remove()
    return [torch.cat(found[path]) for path in paths]


def test_blocks_err_less_than_layer_by_layer_and_their_weights_are_on_the_grid(model, calibrated):
    meant = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    by_layer = copy.deepcopy(model)
    target = results(model, 'first', 'second')
    lines = repaired(model, calibrated)
    assert [line.split(':')[1].split(', ')[1] for line in lines] == ['first', 'second']
    assert all(0 < float(line.split(': ')[2].split()[0]) < 1 for line in lines)
    assert all(0 < float(line.split(', ')[2].split()[0]) < 1.01 for line in lines)
    first = results(model, 'first')[0]
    assert repaired(by_layer, calibrated, by='layer') == []
    assert (first - target[0]).square().sum() < (
        results(by_layer, 'first')[0] - target[0]).square().sum()
    for name in ('first.0', 'second.a', 'twice.b'):
        weight = model.get_submodule(name).weight.detach()
        assert torch.allclose(fake_quantize_weight(weight), weight, atol=1e-7)
        scale = meant[f'{name}.weight'].abs().flatten(1).amax(1).view(-1, 1, 1, 1) / 127
        assert ((weight - meant[f'{name}.weight']).abs() <= scale * (1 + 1e-4)).all()
    assert torch.equal(model.last.weight, by_layer.last.weight)  # no block: as layer by layer


def test_a_block_that_gains_nothing_keeps_what_it_had(model, calibrated, monkeypatch):
    by_layer = copy.deepcopy(model)
    monkeypatch.setattr(SoftWeight, 'hard', lambda self: self.grid.below * self.grid.scale)
    assert all(': 1.000 of the error layer by layer' in line for line in repaired(model, calibrated))
    repaired(by_layer, calibrated, by='layer')
    assert all(torch.equal(weight, dict(by_layer.named_parameters())[name])
               for name, weight in model.named_parameters())


def test_images_that_a_block_has_not_learned_from_say_whether_it_errs_less(model, calibrated, monkeypatch):
    by_layer, learned, judged = copy.deepcopy(model), [], []
    target = results(model, 'first')[0]
    train, error = BlockRounding._train, BlockRounding._error

    def noted_train(self, path, calls, *rest):
        learned.append(calls)
        return train(self, path, calls, *rest)

    def noted_error(self, path, calls, weights):
        judged.append(calls)
        return error(self, path, calls, weights)

    monkeypatch.setattr(BlockRounding, '_train', noted_train)
    monkeypatch.setattr(BlockRounding, '_error', noted_error)
    others = [lambda detector, seed=seed: detector(torch.rand(
        2, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))) for seed in range(3)]
    repaired(model, calibrated, forwards=[FORWARDS[0], *others])
    assert [len(calls) for calls in learned] == [3, 3]
    for calls, (unit, *judging) in zip(learned, (judged[:4], judged[4:])):
        assert unit is calls and [len(each) for each in judging] == [1, 1, 1]
        assert not any(call is other for call in judging[0] for other in calls)
    repaired(by_layer, calibrated, by='layer')
    ours, theirs = ((results(each, 'first')[0] - target)[:2].square().sum() for each in (model, by_layer))
    assert ours <= theirs


def test_a_block_that_computes_from_more_than_its_arguments_is_left(toy, calibrated):
    class Fed(Residual):
        """Adds what the detector left at it."""
        extra = None

        def forward(self, x):
            extra, self.extra = self.extra, None
            return super().forward(x if extra is None else x + extra)

    def fed(detector, image):
        x = detector.first(image)
        detector.second.extra = x
        return detector.last(detector.second(x).flatten(2).transpose(1, 2))

    torch.manual_seed(3)
    model = toy(fed, first=nn.Conv2d(3, 8, 3, padding=1), second=Fed(8), last=nn.Linear(8, 5))
    lines = repaired(model, calibrated)
    assert len(lines) == 1 and 'second: left as layer by layer' in lines[0]


def test_a_block_whose_outputs_do_not_follow_from_some_weights_is_learned_by_the_others(toy, calibrated):
    class Aside(Residual):
        """Leaves the result of one convolution where the detector finds it."""

        def forward(self, x):
            self.left = self.b(x)
            return torch.relu(self.a(x))

    def aside(detector, image):
        x = detector.second(detector.first(image))
        left, detector.second.left = detector.second.left, None
        return detector.last((x + left).flatten(2).transpose(1, 2))

    torch.manual_seed(3)
    model = toy(aside, first=nn.Conv2d(3, 8, 3, padding=1), second=Aside(8), last=nn.Linear(8, 5))
    assert len(repaired(model, calibrated, iterations=10)) == 1


def test_a_block_of_many_products_falls_into_its_parts(toy, calibrated, monkeypatch):
    torch.manual_seed(3)
    model = toy(lambda detector, image: detector.last(detector.whole(image).flatten(2).transpose(1, 2)),
                whole=nn.Sequential(nn.Conv2d(3, 8, 1), Residual(8), Residual(8)), last=nn.Linear(8, 5))
    monkeypatch.setattr('mmdet_bpu.quantization.block_rounding.MOST', 4)
    lines = repaired(model, calibrated, iterations=2)
    assert [line.split(', ')[1].split(':')[0] for line in lines] == ['whole.1', 'whole.2']
