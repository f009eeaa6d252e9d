"""Search on a toy whose settings can all be tried."""
import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.analysis.search import Search
from mmdet_bpu.analysis.measurement_cache import MeasurementCache
from mmdet_bpu.analysis.search_files import qconfig_text, render
from mmdet_bpu.analysis.search_result import INT8, TEMPLATE, TOLERANCE, Bound
from mmdet_bpu.analysis.search_space import SearchSpace
from mmdet_bpu.analysis.sensitivity import describe
from mmdet_bpu.analysis.sensitivity_result import Cost, Sensitivity
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.saved_statistics import SavedStatistics, to_plain
from mmdet_bpu.quantization.scale_choice import ScaleChoice
from tests.stock_detectors import TOY_IMAGE, TOY_SHAPE

MARCH = 'nash-e'


@pytest.fixture(scope='module')
def model(toy, calibrated):
    """Layers, a relu and a softmax: seven tensors that can be both."""

    def body(detector, image):
        x = F.relu(detector.first(image))
        return detector.second(torch.softmax(x.flatten(2), -1))

    detector = toy(body, first=nn.Conv2d(3, 4, 1), second=nn.Linear(24, 5))
    return calibrated(prepare(detector, dict(input_shape=TOY_SHAPE)), TOY_IMAGE)


class Remembering(SearchSpace):
    """Estimates each setting once in all tests."""
    estimates = {}

    def estimate(self, setting, march):
        key = tuple(sorted(setting.items()))
        if key not in self.estimates:
            self.estimates[key] = super().estimate(setting, march)
        return self.estimates[key]


@pytest.fixture(scope='module')
def space(model):
    return Remembering(model, ScaleChoice(model, SavedStatistics(to_plain(model), 'toy')), [])


@pytest.fixture(scope='module')
def losses(space):
    """mAP that each tensor costs in int8, half of them nothing."""
    chance = random.Random(1)
    return {name: chance.choice([0.0, 0.01, 0.02, 0.04]) for name in space.template}


def searched(model, space, losses, bound, known, evaluations=40, seed=0):
    calls = []

    def measure(rules):
        calls.append(rules)
        dtypes = {**space.template, **{rule['site']: rule['dtype'] for rule in rules}}
        return 0.5 - sum(losses[name] for name, dtype in dtypes.items() if dtype == 'int8')

    tensors = describe(model)
    for tensor in tensors:
        change = losses.get(tensor.tensor, 0.0)
        tensor.costs.update(int8=Cost(change, 0.0, 30.0), int16=Cost(0.0, 0.0, 60.0))
    sensitivity = Sensitivity(tensors, 1.0, 1, 1, 'annotations')
    search = Search(space, sensitivity, measure, MARCH, evaluations, seed, known)
    return search.run(bound), calls


def score(losses, setting):
    return 0.5 - sum(losses[name] for name, dtype in setting.items() if dtype == 'int8')


@pytest.fixture(scope='module')
def all_settings(space, losses):
    """(latency, mAP) of every setting that is legal."""
    names, found = list(space.template), []
    for dtypes in itertools.product(('int8', 'int16'), repeat=len(names)):
        setting = dict(zip(names, dtypes))
        if space.is_legal(setting):
            found.append((space.estimate(setting, MARCH).latency_ms, score(losses, setting)))
    return found


def test_which_tensors_are_free(space):
    assert len(space.template) >= 5 and 'image' not in space.template
    assert {'int8', 'int16'} == set(space.template.values())
    assert 'second/linear.0' not in space.template  # an output: its accumulators


def test_what_settings_take_is_about_what_the_cost_model_says(space, all_settings):
    """Of all that are legal, against int8 everywhere; in cycles of the nominal clock, ns.

    The weights' layout moves what enters the linear layer, 96 elements, which no graph says.
    """
    march = get_march(MARCH)
    costs, moved = space.costs(march), 2 * 96 / march.vector_bytes_per_cycle.value
    base = space.all_of('int8')
    names = list(space.template)
    for dtypes in itertools.product(('int8', 'int16'), repeat=len(names)):
        setting = dict(zip(names, dtypes))
        if space.is_legal(setting):
            said = space.estimate(setting, MARCH).latency_us - space.estimate(base, MARCH).latency_us
            guessed = costs.cycles(setting) - costs.cycles(base)
            guessed += moved * (setting['/softmax.mul.0'] == 'int16')
            assert guessed == pytest.approx(said * 1e3, abs=0.1)
    prices = costs.prices(base)
    for name in names:
        alone = costs.cycles({**base, name: 'int16'}) - costs.cycles(base)
        assert prices[name] == pytest.approx(alone)


def test_scales_of_a_setting_are_those_of_its_dtypes(space):
    """Against the largest magnitude of what the calibration saw, by the ratio of both ranges."""
    name = next(name for name in space.template if name.endswith('relu.0'))
    found = {}
    for dtype in ('int8', 'int16'):
        network = space.quantized({**space.template, name: dtype})
        row, = [row for row in network.rows if row['site'] == name]
        assert row['dtype'] == dtype and row['calibrated']
        found[dtype] = row['scale'] * integer_range(dtype)[1]
    largest = space.choice.quantizers[name].statistics.extremes.max().item()
    assert found['int16'] == pytest.approx(largest, rel=0.01)
    assert 0.5 * largest < found['int8'] <= largest * 1.001


def test_the_cheapest_that_keeps_an_map(model, space, losses, all_settings):
    target = 0.5 - 0.02
    result, _ = searched(model, space, losses, Bound(target_map=target), {})
    best = min(latency for latency, mean_ap in all_settings if mean_ap >= target)
    assert result.met and result.chosen.mean_ap >= target
    assert result.chosen.latency_ms == pytest.approx(best, rel=1e-9)
    assert result.chosen.mean_ap == pytest.approx(score(losses, result.chosen.setting))
    assert result.cheapest_ms == pytest.approx(min(latency for latency, _ in all_settings))


def test_the_best_within_a_latency(model, space, losses, all_settings):
    latencies = sorted(latency for latency, _ in all_settings)
    most = latencies[len(latencies) // 3]
    result, _ = searched(model, space, losses, Bound(max_latency_ms=most), {})
    best = max(mean_ap for latency, mean_ap in all_settings if latency <= most)
    assert result.met and result.chosen.latency_ms <= most
    assert result.chosen.mean_ap == pytest.approx(best)


def test_without_a_bound_the_templates_map_is_kept(model, space, losses):
    result, _ = searched(model, space, losses, Bound(), {})
    assert result.chosen.mean_ap >= result.template.mean_ap - TOLERANCE
    assert result.chosen.latency_ms <= result.template.latency_ms
    assert result.template.name == TEMPLATE
    if result.chosen.latency_ms < result.template.latency_ms:
        assert result.verdict().startswith('it beats the template: ')
    else:
        assert result.verdict().startswith('it did not beat the template')
    assert f'int8 everywhere, whatever its mAP, takes {result.cheapest_ms:.3f} ms' \
        in result.verdict()


def test_a_bound_that_cannot_be_kept(model, space, losses):
    result, _ = searched(model, space, losses, Bound(target_map=0.9), {})
    assert not result.met and result.chosen.mean_ap == pytest.approx(
        max(point.mean_ap for point in result.points))
    result, _ = searched(model, space, losses, Bound(max_latency_ms=0.001), {})
    assert not result.met and result.chosen.name == INT8


def test_the_same_seed_finds_the_same_and_measures_nothing_twice(model, space, losses, tmp_path):
    bound = Bound(target_map=0.47)
    path = tmp_path / 'c.json'
    first, calls = searched(model, space, losses, bound, MeasurementCache(path, dict(model=1)))
    again, more = searched(model, space, losses, bound, MeasurementCache(path, dict(model=1)))
    assert again.as_dict() == first.as_dict()
    assert len(calls) == len(first.points) and not more
    _, other = searched(model, space, losses, bound, MeasurementCache(path, dict(model=2)))
    assert len(other) == len(calls)


def test_a_search_that_was_cut_goes_on(model, space, losses, tmp_path):
    class Cut(MeasurementCache):
        def __setitem__(self, name, value):
            if len(self) == 5:
                raise KeyboardInterrupt
            super().__setitem__(name, value)

    bound = Bound(target_map=0.47)
    with pytest.raises(KeyboardInterrupt):
        searched(model, space, losses, bound, Cut(tmp_path / 'c.json', {}))
    kept = MeasurementCache(tmp_path / 'c.json', {})
    assert len(kept) == 5
    result, calls = searched(model, space, losses, bound, kept)
    whole, all_calls = searched(model, space, losses, bound, {})
    assert result.as_dict() == whole.as_dict() and len(calls) < len(all_calls)


def test_a_damaged_cache_is_refused(tmp_path):
    (tmp_path / 'c.json').write_text('{"key": ')
    with pytest.raises(BpuError, match='c.json is damaged; remove it'):
        MeasurementCache(tmp_path / 'c.json', {})


def test_the_front_and_the_page(model, space, losses):
    result, _ = searched(model, space, losses, Bound(), {})
    for point in result.front:
        assert not any(other.latency_ms <= point.latency_ms and other.mean_ap > point.mean_ap
                       for other in result.points)
    page = render(result, 'a<b')
    assert page.count('<circle') == len(result.points) and '<polyline' in page
    assert 'a&lt;b' in page and '://' not in page


def test_the_rules_make_the_setting_and_say_why(model, space, losses):
    result, _ = searched(model, space, losses, Bound(target_map=0.47), {})
    names = {}
    text = qconfig_text(result)
    exec(text, names)
    assert names['searched_qconfig'] == result.rules and result.rules
    assert text.count('    # int8 alone costs ') == len(result.rules)
    graph = quantization_of(model).networks[0]
    network = space.quantized(result.chosen.setting)
    assert {graph.name(value): config.dtype for value, config in network.configs.items()
            if graph.name(value) in space.template} == result.chosen.setting
