"""Observers against brute force, and their statistics over several processes."""
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.criteria import (KLObserver, MinMaxObserver, MSEObserver, divergence,
                                             squared_errors)
from mmdet_bpu.quantization.observers import OBSERVERS, build_observer

INT8, INT16 = (-128, 127), (-32768, 32767)
NAMES = 'minmax', 'moving_average', 'percentile', 'mse', 'kl', 'mix'


def squared_error(x: np.ndarray, scale: float, high: int) -> float:
    q = np.clip(np.rint(x / scale), -high, high)
    return float(((x - q * scale)**2).sum())


def brute_force(x: np.ndarray, high: int) -> float:
    """Least squared error over a fine grid of scales, on the values themselves."""
    scales = np.abs(x).max() / high * np.linspace(0.01, 1, 1000)
    return min(squared_error(x, s, high) for s in scales)


DISTRIBUTIONS = {
    'normal': lambda rng: rng.standard_normal(20000),
    'long tail': lambda rng: rng.standard_t(3, 20000),
    'one outlier': lambda rng: np.append(rng.standard_normal(20000), 300.0),
    'uniform': lambda rng: rng.uniform(-1, 1, 20000),
    'relu': lambda rng: np.maximum(rng.standard_normal(20000), 0),
    'few values': lambda rng: rng.integers(-3, 4, 20000) * 0.7,
    'tiny': lambda rng: rng.standard_normal(20000) * 1e-6,
}


@pytest.mark.parametrize('name', DISTRIBUTIONS)
@pytest.mark.parametrize('integers', [INT8, INT16], ids=['int8', 'int16'])
def test_mse_is_as_good_as_brute_force(name, integers):
    x = DISTRIBUTIONS[name](np.random.default_rng(0)).astype(np.float32)
    observer = MSEObserver()
    for part in np.array_split(x, 7):
        observer.observe(torch.from_numpy(part))
    scale = observer.scale(integers)
    x = x.astype(np.float64)
    best = brute_force(x, integers[1])
    # 128 candidates and bins of finite width: within 5 % of the best, or of no error at all.
    assert squared_error(x, scale, integers[1]) <= 1.05 * best + 1e-9 * (x**2).sum()


@pytest.mark.parametrize('name', NAMES)
def test_non_finite_values_are_skipped(name):
    clean, dirty = build_observer(name), build_observer(name)
    x = torch.linspace(-3, 3, 1001)
    clean.observe(x)
    dirty.observe(torch.cat([x, torch.tensor([float('inf'), float('-inf'), float('nan')])]))
    dirty.observe(torch.tensor([float('nan')]))
    assert clean.scale(INT8) == dirty.scale(INT8) is not None


@pytest.mark.parametrize('name', NAMES)
def test_zeros_have_a_positive_scale_and_nothing_has_none(name):
    observer = build_observer(name)
    assert observer.scale(INT8) is None
    observer.observe(torch.zeros(0))
    assert observer.scale(INT8) is None
    observer.observe(torch.zeros(4))
    assert observer.scale(INT8) > 0
    observer.reset()
    assert observer.scale(INT8) is None


def test_min_max_is_the_largest_magnitude():
    observer = MinMaxObserver()
    observer.observe(torch.tensor([0.5, -6.35]))
    observer.observe(torch.tensor([1.0]))
    assert observer.scale(INT8) == pytest.approx(6.35 / 127)


def seen_by(observer, *batches):
    for batch in batches:
        observer.observe(torch.as_tensor(batch, dtype=torch.float32))
        observer.end_batch()
    return observer


def test_the_moving_average_follows_the_batches_in_order():
    observer = seen_by(build_observer(dict(type='moving_average', constant=0.25)),
                       [1.0, -4.0], [8.0], [float('nan')], [-2.0, 1.0])
    assert observer.scale(INT8) == pytest.approx((4 + 1 - (5 - 2) / 4) / 127)


@pytest.mark.parametrize('percentile', [50, 99.9, 100])
def test_the_percentile_is_that_of_the_values_to_a_bin(percentile):
    x = DISTRIBUTIONS['long tail'](np.random.default_rng(1)).astype(np.float32)
    observer = seen_by(build_observer(dict(type='percentile', percentile=percentile)), x)
    expected = np.percentile(np.abs(x), percentile, method='inverted_cdf')
    width = observer.statistics.limit.item() / 2048
    assert expected - 1e-6 <= observer.scale(INT8) * 127 <= expected + 1.01 * width
    assert observer.scale(INT8) * 127 <= np.abs(x).max() * (1 + 1e-6)


def divergence_by_definition(counts, kept, levels):
    """Of the cut histogram and the one whose integers' bins share their counts."""
    real = list(counts[:kept])
    real[-1] += sum(counts[kept:])
    rounded = [0.0] * kept
    for level in range(levels):
        own = [i for i in range(kept) if level * kept // levels <= i < (level + 1) * kept // levels]
        filled = [i for i in own if counts[i] > 0]
        for i in filled:
            rounded[i] = sum(counts[j] for j in own) / len(filled)
    p, q = (np.array(each) / sum(each) for each in (real, rounded))
    return sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q) if a > 0)


@pytest.mark.parametrize('kept', [16, 40, 64])
def test_the_divergence_is_that_of_its_definition(kept):
    counts = np.random.default_rng(kept).poisson(3.0, 64).astype(np.float64)
    counts[10:20] = 0
    assert divergence(counts, kept, 16) == pytest.approx(divergence_by_definition(counts, kept, 16))


def test_kl_cuts_a_lone_outlier_off_and_int16_keeps_it():
    x = DISTRIBUTIONS['one outlier'](np.random.default_rng(0))
    observer = seen_by(KLObserver(), x)
    assert observer.scale(INT8) * 127 < 34  # the least that is tried
    assert observer.scale(INT16) == pytest.approx(300 / 32767)


@pytest.mark.parametrize('name', DISTRIBUTIONS)
@pytest.mark.parametrize('integers', [INT8, INT16], ids=['int8', 'int16'])
def test_the_mix_is_the_best_of_what_it_mixes(name, integers):
    x = DISTRIBUTIONS[name](np.random.default_rng(0))
    mixed = ['minmax', 'percentile', 'mse', 'kl']
    scales = {each: seen_by(build_observer(each), x).scale(integers) for each in (*mixed, 'mix')}
    statistics = seen_by(MSEObserver(), x).statistics
    errors = dict(zip(scales, squared_errors(
        statistics, torch.tensor(list(scales.values())), integers[1]).tolist()))
    assert scales['mix'] in [scales[each] for each in mixed]
    assert errors['mix'] == pytest.approx(min(errors.values()))


@pytest.mark.parametrize('config, message', [
    (dict(type='moving_average', constant=0), 'constant: expected a number above 0'),
    (dict(type='percentile', percentile=101), 'percentile: expected a number above 0'),
    (dict(type='percentile', percentile='99'), 'percentile: expected a number above 0'),
    (dict(type='kl', candidates=0), 'candidates: expected a whole number'),
    (dict(type='mse', bins=3), 'bins: expected an even number'),
    (dict(type='mix', of=[]), 'of: expected a list of observers'),
    (dict(type='mix', of=['nothing']), r'of\[0\]: expected one of'),
    (dict(type='mix', of=['minmax', 'mix']), 'of: expected criteria other than mix'),
    (dict(type='mix', of=['minmax', dict(type='mse', bins=64)]), r'of\[1\].bins: all criteria of mix'),
])
def test_bad_arguments_are_named(config, message):
    with pytest.raises(BpuError, match=message):
        build_observer(config)


def test_every_observer_of_ours_is_tested_here():
    ours = {name for name, each in OBSERVERS.module_dict.items()
            if each.__module__ == MSEObserver.__module__}
    assert ours == set(NAMES)


def test_observers_are_configured_by_name_or_dict():
    assert build_observer(dict(type='mse', bins=64)).statistics.bins == 64
    assert isinstance(build_observer('minmax'), MinMaxObserver)


def test_statistics_of_an_observer_are_not_in_its_state_dict():
    assert not MSEObserver().state_dict() and not MinMaxObserver().state_dict()


BATCHES = [torch.randn(500, generator=torch.Generator().manual_seed(i)) * 10.0**(i - 2)
           for i in range(4)]


def scales_of_rank(rank: int, rendezvous: str, answers) -> None:
    """Observe every second batch, reduce, and send the scales."""
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
    scales = {}
    for name in NAMES:
        observer = build_observer(name)
        for batch in BATCHES[rank::2]:
            observer.observe(batch)
            observer.end_batch()
        observer.reduce()
        scales[name] = observer.scale(INT8)
    answers.put(scales)
    dist.destroy_process_group()


def test_two_processes_agree_on_the_scales_of_one(tmp_path):
    context = multiprocessing.get_context('fork')
    answers = context.Queue()
    ranks = [context.Process(target=scales_of_rank,
                             args=(rank, str(tmp_path / 'rendezvous'), answers))
             for rank in range(2)]
    for rank in ranks:
        rank.start()
    scales = [answers.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join(timeout=60)
    alone = {}
    for name in NAMES:
        observer = build_observer(name)
        for first, second in zip(BATCHES[::2], BATCHES[1::2]):  # what runs at once is one batch
            observer.observe(first)
            observer.observe(second)
            observer.end_batch()
        alone[name] = observer.scale(INT8)
    assert scales[0] == scales[1] == alone
