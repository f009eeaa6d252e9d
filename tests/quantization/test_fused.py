"""Written-out functions at once: the integers of the open path, and its gradients."""
import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples
from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.fused.composites import FUSED
from tests.stock_detectors import calibrate

SHAPE = (16, 24)
IMAGES = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))
LEVELS = [(12, 16), (6, 8), (3, 4)]
POINTS, HEADS, CHANNELS = 3, 2, 8


def rows(detector, image):
    """(N, 96, 40): enough of them for two threads."""
    return detector.conv(image).flatten(2).transpose(1, 2)


def softmax(detector, image):
    return rows(detector, image).softmax(-1)


def masked_softmax(detector, image):
    x = rows(detector, image)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[:, ::3, ::2] = True
    return F.softmax(x.masked_fill(mask, float('-inf')), dim=-1)


def layer_norm(detector, image):
    return detector.norm(rows(detector, image))


def plain_layer_norm(detector, image):
    return F.layer_norm(rows(detector, image), (40, ))


def group_norm(detector, image):
    return F.relu(detector.groups(detector.conv(image)), inplace=True)


def plain_group_norm(detector, image):
    return F.group_norm(detector.conv(image), 4)


def sampling(detector, image):
    """Samples inside, across the border and outside, of three levels."""
    x = rows(detector, image)
    batch = len(image)
    count = sum(h * w for h, w in LEVELS)
    value = detector.value(image).flatten(2).transpose(1, 2)[:, :count]
    value = value.reshape(batch, count, HEADS, CHANNELS)
    locations = detector.place(x).reshape(batch, -1, HEADS, len(LEVELS), POINTS, 2) + 0.5
    weights = detector.weigh(x).view(batch, -1, HEADS, len(LEVELS) * POINTS)
    return weighted_samples(value, LEVELS, locations, weights)


BODIES = [softmax, masked_softmax, layer_norm, plain_layer_norm, group_norm, plain_group_norm,
          sampling]


@pytest.fixture
def prepared(toy):
    """Function (body) -> a calibrated toy, trained on pictures that go 1.5 times beyond its grids."""

    def build(body, **settings):
        torch.manual_seed(3)
        modules = dict(conv=nn.Conv2d(3, 40, 2, 2), norm=nn.LayerNorm(40),
                       groups=nn.GroupNorm(5, 40),
                       value=nn.Conv2d(3, HEADS * CHANNELS, 1),
                       place=nn.Linear(40, HEADS * len(LEVELS) * POINTS * 2),
                       weigh=nn.Linear(40, HEADS * len(LEVELS) * POINTS))
        for name in ('norm', 'groups'):
            nn.init.normal_(modules[name].weight, 1.0, 0.3)
            nn.init.normal_(modules[name].bias, 0.0, 0.3)
        model = prepare(toy(body, **modules),
                        dict(input_shape=SHAPE, calibration=dict(observer='minmax'), **settings))
        return calibrate(model, IMAGES / 1.5).train()

    return build


def step(model, images=IMAGES):
    """Outputs and gradients of one forward and backward."""
    model.zero_grad()
    outputs = model(images)
    outputs = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    generator = torch.Generator().manual_seed(9)
    outputs.backward(torch.randn(outputs.shape, generator=generator))
    return outputs.detach(), {name: p.grad.clone() for name, p in model.named_parameters()
                              if p.grad is not None}


def assert_same(found, expected):
    """Equal outputs; gradients whose sums were added up in another order."""
    assert torch.equal(found[0], expected[0])
    assert found[1].keys() == expected[1].keys() and found[1]
    for name, gradient in expected[1].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4,
                                   atol=2e-5 * gradient.abs().max().item())


@pytest.fixture
def counted(monkeypatch):
    """How often something ran at once."""
    seen = []
    for function, fused in list(FUSED.items()):
        def run(*args, fused=fused, **kwargs):
            result = fused(*args, **kwargs)
            seen.extend([fused] if result is not NotImplemented else [])
            return result
        monkeypatch.setitem(FUSED, function, run)
    return seen


@pytest.mark.parametrize('body', BODIES, ids=lambda body: body.__name__)
def test_outputs_are_those_of_the_open_path_and_gradients_too(prepared, body, counted, monkeypatch):
    model = prepared(body)
    found = step(model)
    assert len(counted) == 1
    with torch.no_grad():
        outputs = model.eval()(IMAGES)
    assert torch.equal(outputs, found[0]) and len(counted) == 2
    monkeypatch.setattr(compiled_loops, 'usable', lambda: False)
    expected = step(model.train())
    assert len(counted) == 2
    assert_same(found, expected)


def test_on_several_threads_the_results_are_the_same(prepared, counted, monkeypatch):
    models = [prepared(body) for body in BODIES]
    expected = [step(model) for model in models]
    monkeypatch.setattr(compiled_loops, 'shares', lambda count, work=1: [
        (count * part // 3, count * (part + 1) // 3) for part in range(3)])
    for model, one_thread in zip(models, expected):
        assert_same(step(model), one_thread)
    assert len(counted) == 2 * len(BODIES)


def test_nan_stays(prepared, monkeypatch):
    images = IMAGES.clone()
    images[0, 0, 4, 6] = float('nan')
    models = [prepared(body) for body in (softmax, layer_norm, sampling)]
    with torch.no_grad():
        found = [model(images) for model in models]
        monkeypatch.setattr(compiled_loops, 'usable', lambda: False)
        expected = [model(images) for model in models]
    for x, y in zip(found, expected):
        assert x.isnan().any() and not x.isnan().all()
        assert torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())


def test_the_first_step_has_run_all_sites(prepared):
    model = prepared(layer_norm)
    model(IMAGES)
    assert quantization_of(model).untrained == []


def test_a_watched_quantizer_is_called(prepared, counted):
    model = prepared(softmax)
    expected, seen = step(model), []
    quantizer = quantization_of(model).quantizer('/softmax.exp.0')
    quantizer.register_forward_hook(lambda module, given, output: seen.append(output))
    found = step(model)
    assert len(counted) == 1 and len(seen) == 1
    assert_same(found, expected)


def test_a_copy_has_its_own_scales(prepared):
    model = prepared(layer_norm)
    before = step(model)[0]
    twin = copy.deepcopy(model)
    quantization_of(twin).quantizer('norm/layer_norm.add.1').scale.mul_(2)
    assert not torch.equal(step(twin)[0], before)
    assert torch.equal(step(model)[0], before)


def test_under_autocast_what_is_quantized_stays_in_float32(prepared, counted, monkeypatch):
    model = prepared(layer_norm)

    def outputs():
        with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
            return model(IMAGES)

    found = outputs()
    assert len(counted) == 1 and found.dtype == torch.float32
    monkeypatch.setattr(compiled_loops, 'usable', lambda: False)
    assert torch.equal(outputs(), found)


@pytest.mark.parametrize('body, last', [(softmax, '/softmax.mul.0'), (sampling, '/sum.0'),
                                        (layer_norm, 'norm/layer_norm.add.1')])
def test_closed_training_quantizes_the_result_alone(prepared, body, last):
    opened, closed = prepared(body), prepared(body, qat=dict(closed=True))
    quantizer, given = quantization_of(closed).quantizer(last), []
    quantizer.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    found = step(closed)
    assert torch.equal(found[0], quantizer.on_grid(given[0]))
    assert not torch.equal(found[0], step(opened)[0])
    assert (found[0] - step(opened)[0]).abs().mean() < 0.05 * found[0].std()
    assert quantization_of(closed).untrained == []
    with torch.no_grad():  # validation runs as it is deployed
        assert torch.equal(closed.eval()(IMAGES), opened.eval()(IMAGES))


def test_checkpointed_parts_stay_closed_when_they_run_again(prepared):
    def body(detector, image):
        return checkpoint(functools.partial(layer_norm, detector), image, use_reentrant=False)

    plain, again = (prepared(each, qat=dict(closed=True)) for each in (layer_norm, body))
    assert_same(step(again), step(plain))
