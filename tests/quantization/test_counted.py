"""Composites whose inner tensors are counted while they run, against the calls written out."""
import pytest
import torch
from torch import nn

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples
from mmdet_bpu.quantization import prepare, set_quant_state
from mmdet_bpu.quantization.fused.composites import COUNTED
from mmdet_bpu.quantization.criteria import MinMaxObserver
from mmdet_bpu.quantization.observers import OBSERVERS

LEVELS, HEADS, CHANNELS, POINTS, SHAPE = [(4, 6), (2, 3)], 2, 8, 4, (8, 12)
PICTURES = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(4))

pytestmark = pytest.mark.skipif(not compiled_loops.usable(), reason='numba is not installed')


def sampling(detector, image):
    """Samples inside, across the border and outside, of two levels."""
    batch, count = len(image), sum(h * w for h, w in LEVELS)
    x = detector.conv(image).flatten(2).transpose(1, 2)
    value = detector.value(image).flatten(2).transpose(1, 2)[:, :count]
    value = value.reshape(batch, count, HEADS, CHANNELS)
    locations = detector.place(x).reshape(batch, -1, HEADS, len(LEVELS), POINTS, 2) + 0.5
    weights = detector.weigh(x).view(batch, -1, HEADS, len(LEVELS) * POINTS)
    return weighted_samples(value, LEVELS, locations, weights)


@pytest.fixture
def observing(toy):
    """Function (observer, qconfig) -> the same toy, prepared, observing."""

    def build(observer='mse', qconfig=()):
        torch.manual_seed(3)
        detector = toy(sampling, conv=nn.Conv2d(3, 24, 2, 2),
                       value=nn.Conv2d(3, HEADS * CHANNELS, 1),
                       place=nn.Linear(24, HEADS * len(LEVELS) * POINTS * 2),
                       weigh=nn.Linear(24, HEADS * len(LEVELS) * POINTS))
        model = prepare(detector, dict(input_shape=SHAPE, calibration=dict(observer=observer),
                                       qconfig=list(qconfig)))
        set_quant_state(model, 'observe')
        return model.eval()

    return build


@pytest.fixture
def at_once(monkeypatch):
    """How often samples were counted while they were made."""
    seen, counted = [], COUNTED[weighted_samples]

    def run(*args, **kwargs):
        result = counted(*args, **kwargs)
        seen.extend([1] if result is not NotImplemented else [])
        return result

    monkeypatch.setitem(COUNTED, weighted_samples, run)
    return seen


def statistics(model):
    """All that was observed, by buffer."""
    return {name: buffer.clone() for name, buffer in model.quant.named_buffers()}


def seen_by(model, *batches):
    """Outputs of some batches and the statistics after them."""
    with torch.no_grad():
        return [model(batch) for batch in batches], statistics(model)


def assert_same(found, expected):
    for one, other in zip(found[0], expected[0]):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
        assert torch.equal(one.isnan(), other.isnan())
    assert found[1].keys() == expected[1].keys()
    for name, buffer in expected[1].items():
        assert torch.equal(found[1][name], buffer), name


def open_path(monkeypatch, model, *batches):
    with monkeypatch.context() as patch:
        patch.delitem(COUNTED, weighted_samples)
        return seen_by(model, *batches)


@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize('observer', ['mse', 'minmax', dict(type='mse', bins=64)],
                         ids=['mse', 'minmax', '64 bins'])
def test_outputs_and_statistics_are_those_of_the_open_path(observing, at_once, monkeypatch, observer,
                                                           threads):
    batches = PICTURES, 30 * PICTURES, PICTURES[:1] / 7, float('nan') * PICTURES
    expected = open_path(monkeypatch, observing(observer), *batches)
    assert not at_once
    monkeypatch.setattr(compiled_loops, 'shares', lambda count, work=1: [
        (count * part // threads, count * (part + 1) // threads) for part in range(threads)])
    assert_same(seen_by(observing(observer), *batches), expected)
    assert len(at_once) == len(batches)


@pytest.mark.parametrize('infinite', ['place', 'weigh', 'value'])
def test_values_that_are_not_finite_are_skipped(observing, at_once, monkeypatch, infinite):
    def build():
        model = observing()
        with torch.no_grad():
            getattr(model, infinite).bias[1] = float('inf')
        return model

    assert_same(seen_by(build(), PICTURES), open_path(monkeypatch, build(), PICTURES))
    assert len(at_once) == 1


class Halved(MinMaxObserver):
    """An observer of a user, made from one of ours."""

    def observe(self, x):
        return super().observe(x / 2)


def test_an_observer_of_a_user_sees_every_tensor(observing, at_once, monkeypatch):
    monkeypatch.setitem(OBSERVERS.module_dict, 'halved', Halved)
    _, found = seen_by(observing('halved'), PICTURES)
    _, whole = seen_by(observing('minmax'), PICTURES)
    assert len(at_once) == 1  # of the second model
    extremes = [name for name in found if name.endswith('statistics.history')]
    assert len(extremes) > 5
    for name in extremes:
        assert whole[name][0] > 0 and found[name][0] == whole[name][0] / 2


def test_a_watched_quantizer_is_called(observing, at_once):
    model = observing()
    name = next(name for name in model.quant.quantizers if 'sum' in name)
    called = []
    model.quant.quantizers[name].register_forward_hook(lambda *args: called.append(1))
    seen_by(model, PICTURES)
    assert called and not at_once


def test_gradients_are_those_of_the_open_path(observing, at_once):
    model = observing()
    model(PICTURES)[0].sum().backward()
    assert model.value.weight.grad.abs().max() > 0 and not at_once


def test_a_calibrated_model_has_the_scales_of_the_open_path(observing, monkeypatch):
    def scales(model):
        for quantizer in model.quant.quantizers.values():
            quantizer.finish_calibration()
        return {name: q.scale.item() for name, q in model.quant.quantizers.items()}

    closed, written_out = observing(), observing()
    seen_by(closed, PICTURES)
    open_path(monkeypatch, written_out, PICTURES)
    assert scales(closed) == scales(written_out)
