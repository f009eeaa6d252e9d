"""One tensor alone: rounded where the whole model rounds it, and nothing else."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.analysis.alone import Alone
from mmdet_bpu.quantization import prepare, quantization_of, set_quant_state
from mmdet_bpu.quantization.scale_choice import weight_names
from tests.stock_detectors import TOY_IMAGE, TOY_SHAPE

SCALE = 0.05


def rounded(x, scale=SCALE, high=127):
    return torch.clamp(torch.round(x / scale), -high - 1, high) * scale


@pytest.fixture
def chain(toy, calibrated):
    """A convolution, a softmax and a linear layer: (calibrated toy, its layers)."""

    def body(detector, image):
        x = F.relu(detector.conv(image))
        x = torch.softmax(x.flatten(2), -1)
        return detector.linear(x)

    detector = toy(body, conv=nn.Conv2d(3, 4, 1), linear=nn.Linear(24, 5))
    return calibrated(prepare(detector, dict(input_shape=TOY_SHAPE)), TOY_IMAGE)


def names_of(model):
    return {row['site']: row['quantizer'] for network in quantization_of(model).networks
            for row in network.with_scales(lambda name: (1.0, True)).rows}


@torch.no_grad()
def run(model, activations, weights=()):
    set_quant_state(model, 'off')
    with Alone(model).quantizing(activations, weights):
        return model(TOY_IMAGE)


@torch.no_grad()
def expected(model, image=lambda x: x, relu=lambda x: x, exp=lambda x: x, weight=lambda w: w):
    x = F.conv2d(image(TOY_IMAGE), weight(model.conv.weight), model.conv.bias)
    x = relu(F.relu(x)).flatten(2)
    powers = exp(torch.exp(x - x.amax(-1, keepdim=True)))
    return F.linear(powers / powers.sum(-1, keepdim=True), model.linear.weight, model.linear.bias)


def site(model, ending):
    name, = [name for name in names_of(model) if name.endswith(ending)]
    return name


def test_nothing_is_rounded_unless_asked(chain):
    assert torch.allclose(run(chain, {}), expected(chain), atol=1e-6)


@pytest.mark.parametrize('ending, argument', [('image', 'image'), ('relu.0', 'relu'),
                                              ('softmax.exp.0', 'exp')])
def test_one_activation(chain, ending, argument):
    found = run(chain, {site(chain, ending): ('int8', SCALE)})
    assert torch.allclose(found, expected(chain, **{argument: rounded}), atol=1e-6)
    assert not torch.allclose(found, expected(chain), atol=1e-5)


def test_one_weight(chain):
    assert {'conv.weight', 'linear.weight'} <= set(weight_names(chain))

    def by_channel(weight):
        return torch.stack([rounded(row, row.abs().max() / 127) for row in weight])

    found = run(chain, {}, ['conv.weight'])
    assert torch.allclose(found, expected(chain, weight=by_channel), atol=1e-6)


def test_regions(chain):
    assert Alone(chain).regions([site(chain, 'relu.0')]) == {'extract_feat'}
    assert Alone(chain).regions([]) == set()
