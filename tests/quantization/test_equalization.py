"""Channels between two products brought to like ranges; the float model stays what it was."""
import pytest
import torch
from torch import nn

from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.equalization import equalize, pairs

SHAPE = (8, 12)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(4))


def chain(detector, image):
    """conv, relu, depthwise conv, conv, relu, then linear, relu, linear over the channels."""
    x = detector.second(detector.depthwise(torch.relu(detector.first(image)))).relu()
    x = x.flatten(2).transpose(1, 2)
    return detector.narrow(torch.relu(detector.wide(x)))


def unequal(modules):
    """Channels whose ranges differ by up to 2**8, with one that is dead."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in modules.values():
            rows = module.weight.shape[0]
            factor = torch.exp2(torch.randint(-4, 5, (rows, ), generator=generator).float())
            module.weight.mul_(factor.view(-1, *(1, ) * (module.weight.dim() - 1)))
        modules['first'].weight[2] = 0
    return modules


@pytest.fixture
def model(toy):
    torch.manual_seed(3)
    return toy(chain, **unequal(dict(
        first=nn.Conv2d(3, 8, 3, padding=1), depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        second=nn.Conv2d(8, 6, 1, bias=False), wide=nn.Linear(6, 16), narrow=nn.Linear(16, 4))))


def ranges(model, pair):
    parameters = dict(model.named_parameters())
    reader = parameters[pair.reader]
    reads = reader if pair.depthwise else reader.transpose(0, 1)
    return [each.abs().flatten(1).amax(1) for each in (parameters[pair.weight], reads)]


def test_pairs_are_what_nothing_but_a_relu_lies_between(model):
    prepare(model, dict(input_shape=SHAPE))
    found = pairs(quantization_of(model).networks[0].graph)
    assert [(pair.weight, pair.reader) for pair in found] == [
        ('first.weight', 'depthwise.weight'), ('depthwise.weight', 'second.weight'),
        ('wide.weight', 'narrow.weight')]
    assert [pair.depthwise for pair in found] == [True, False, False]


def test_the_float_model_is_the_same_bit_for_bit(model):
    expected = model(IMAGE)
    prepare(model, dict(input_shape=SHAPE, calibration=dict(equalize=True)))
    assert torch.equal(model(IMAGE), expected)


def test_both_sides_are_alike_afterwards(model):
    prepare(model, dict(input_shape=SHAPE))
    network = quantization_of(model).networks[0]
    before = [ranges(model, pair) for pair in pairs(network.graph)]
    for pair, (old_writes, old_reads) in zip(equalize(model, network), before):
        writes, reads = ranges(model, pair)
        alive = (writes > 0) & (reads > 0)
        assert alive.sum() >= len(alive) - 1
        spread = torch.log2(writes[alive] / reads[alive]).abs().amax()
        assert spread <= 1.5 < torch.log2(old_writes[alive] / old_reads[alive]).abs().amax()


def test_it_brings_the_quantized_model_nearer_to_the_float_one(model, toy, calibrated):
    import copy
    errors = {}
    expected = model(IMAGE)
    for on in (False, True):
        quantized = calibrated(prepare(copy.deepcopy(model), dict(
            input_shape=SHAPE, calibration=dict(observer='minmax', equalize=on),
            qconfig=[dict(site='*', dtype='int8')])), IMAGE)
        with torch.no_grad():
            errors[on] = (quantized(IMAGE) - expected).square().mean().item()
    assert errors[True] < 0.7 * errors[False]


def test_a_weight_that_is_read_twice_stays(toy):
    torch.manual_seed(3)
    modules = unequal(dict(first=nn.Conv2d(3, 3, 3, padding=1), second=nn.Conv2d(3, 4, 1)))
    model = toy(lambda d, image: d.second(d.first(d.first(image)).relu()), **modules)
    prepare(model, dict(input_shape=SHAPE))
    assert pairs(quantization_of(model).networks[0].graph) == []
