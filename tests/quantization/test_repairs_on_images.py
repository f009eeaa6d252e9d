"""Repairs of a calibrated detector: what its products read, and biases that lose their mean error."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.fake_quant import fake_quantize, fake_quantize_weight
from mmdet_bpu.quantization.repairs import repair_calibrated, watch_products

SHAPE = (8, 12)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(4)).abs()


def network(detector, image):
    """A strided convolution, one by groups that runs twice, and a linear layer."""
    x = detector.first(image).relu()
    x = detector.twice(detector.twice(x).relu())
    return detector.last(x.flatten(2).transpose(1, 2))


@pytest.fixture
def model(toy):
    torch.manual_seed(3)
    return toy(network, first=nn.Conv2d(3, 8, 3, stride=2, padding=1, dilation=2),
               twice=nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), last=nn.Linear(8, 5))


def watched(model, calibrated, **calibration):
    """The calibrated model, its quantization, and what its products read of the image."""
    calibrated(prepare(model, dict(input_shape=SHAPE, calibration=calibration)), IMAGE)
    quant = quantization_of(model)
    inputs = watch_products(quant)
    with inputs.watching(quant):
        model(IMAGE)
    return quant, inputs


def test_moments_are_those_of_all_columns(model, calibrated):
    read = {}
    for name in ('first', 'twice', 'last'):
        getattr(model, name).register_forward_hook(
            lambda module, args, output, name=name: read.setdefault(name, []).append(args[0]))
    with torch.no_grad():
        model(IMAGE)
    expected = copy.deepcopy(read)
    quant, inputs = watched(model, calibrated, adaround=True)
    assert quant.state == 'quantize' and quant.products is None
    graph, placement = quant.networks[0].graph, quant.networks[0].placement
    quantizers = [quant.quantizer(quant.networks[0].name(placement.integers(op.inputs[0])))
                  for op in graph.ops if op.kind in ('conv2d', 'linear')]
    calls = dict(first=[quantizers[0]], twice=quantizers[1:3])
    for name, unfold in (('first', dict(kernel_size=3, stride=2, padding=1, dilation=2)),
                         ('twice', dict(kernel_size=3, padding=1))):
        groups = 4 if name == 'twice' else 1
        count, real, rounded, products = 0, 0, 0, 0
        for x, quantizer in zip(expected[name], calls[name]):
            columns = F.unfold(x, **unfold).transpose(0, 1).flatten(1)
            columns = columns.view(groups, len(columns) // groups, -1).double()
            grid = fake_quantize(F.unfold(x, **unfold), quantizer.scale, quantizer.dtype)
            grid = grid.transpose(0, 1).flatten(1).view(columns.shape).double()
            count, real = count + columns.shape[-1], real + columns.sum(-1)
            rounded = rounded + grid.sum(-1)
            products = products + grid @ grid.transpose(1, 2)
        found = inputs.moments[f'{name}.weight']
        assert found.count == count
        for mine, theirs in ((found.real, real), (found.rounded, rounded),
                             (found.products, products)):
            assert torch.allclose(mine.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_corrected_product_has_the_mean_of_the_float_one(toy, calibrated):
    torch.manual_seed(3)
    model = toy(lambda d, image: d.only(image.flatten(2).transpose(1, 2)), only=nn.Linear(3, 6))
    with torch.no_grad():
        expected = model(IMAGE).double().mean((0, 1))
    quant, inputs = watched(model, calibrated, bias_correction=True, observer=dict(
        type='percentile', percentile=80.0))
    with torch.no_grad():
        before = model(IMAGE).double().mean((0, 1))
        repair_calibrated(model, quant, inputs)
        after = model(IMAGE).double().mean((0, 1))
    assert (before - expected).abs().max() > 1e-3
    assert (after - expected).abs().max() < 1e-6


def test_both_together_keep_the_mean_and_err_less(model, calibrated):
    plain = copy.deepcopy(model)
    calibrated(prepare(plain, dict(input_shape=SHAPE)), IMAGE)
    with torch.no_grad():
        expected = model(IMAGE)
        unrepaired = (plain(IMAGE) - expected).square().mean()
    quant, inputs = watched(model, calibrated, adaround=50, bias_correction=True)
    weight = model.twice.weight.clone()
    with torch.no_grad():
        repair_calibrated(model, quant, inputs)
        repaired = (model(IMAGE) - expected).square().mean()
    assert repaired < 0.8 * unrepaired
    assert not torch.equal(model.twice.weight, weight)
    assert torch.allclose(model.twice.weight, fake_quantize_weight(model.twice.weight), atol=1e-7)
    assert not quant.weights_changed(model)


def test_what_is_not_asked_for_stays(model, calibrated):
    quant, inputs = watched(model, calibrated, bias_correction=True)
    assert all(moments.products is None for moments in inputs.moments.values())
    weights = [module.weight.clone() for module in (model.first, model.twice, model.last)]
    repair_calibrated(model, quant, inputs)
    assert all(torch.equal(before, module.weight) for before, module in zip(
        weights, (model.first, model.twice, model.last)))
