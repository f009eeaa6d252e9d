"""Observers against brute force, and their statistics over several processes."""
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.quantization.observers import MinMaxObserver, MSEObserver, build_observer

INT8, INT16 = (-128, 127), (-32768, 32767)


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


@pytest.fixture(params=['compiled', 'torch'])
def path(request, monkeypatch):
    """Both ways that values are counted on a CPU."""
    if request.param == 'torch':
        monkeypatch.setattr(compiled_loops, '_switched_off', True)
    elif not compiled_loops.usable():
        pytest.skip('numba is not installed')


@pytest.mark.parametrize('threads', [1, 3])
def test_the_histogram_is_that_of_numpy(path, threads):
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal(size) * size_of).astype(np.float32)
               for size, size_of in ((5000, 1e-3), (250_001, 1.0), (4096, 30.0), (1, 1e-6))]
    batches[1][:4] = np.nan, np.inf, -np.inf, 0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    observer = MSEObserver()
    nan = [bool(observer.observe(torch.from_numpy(batch))) for batch in batches]
    torch.set_num_threads(before)
    assert nan == [False, True, False, False]
    seen = np.abs(np.concatenate(batches))
    seen = seen[np.isfinite(seen)]
    assert observer.largest.item() == seen.max() < observer.limit.item() <= 2 * seen.max()
    expected, _ = np.histogram(seen, 2048, (0, observer.limit.item()))
    np.testing.assert_array_equal(observer.counts, expected)


def test_order_of_batches_does_not_matter():
    parts = [torch.full((5, ), value) for value in (0.001, 7.0, 0.3, 130.0)]
    scales = []
    for order in (parts, parts[::-1]):
        observer = MSEObserver()
        for part in order:
            observer.observe(part)
        scales.append((observer.scale(INT8), observer.limit.item(), observer.counts.sum().item()))
    assert scales[0] == scales[1]
    assert scales[0][1:] == (256.0, 20.0), 'the histogram widened by doubling and lost nothing'


def test_a_value_at_the_limit_of_the_histogram_is_counted():
    observer = MSEObserver()
    observer.observe(torch.tensor([1.0]))
    observer.observe(torch.tensor([2.0, 4.0]))
    assert observer.counts.sum().item() == 3


@pytest.mark.parametrize('name', ['minmax', 'mse'])
def test_non_finite_values_are_skipped(name):
    clean, dirty = build_observer(name), build_observer(name)
    x = torch.linspace(-3, 3, 1001)
    clean.observe(x)
    dirty.observe(torch.cat([x, torch.tensor([float('inf'), float('-inf'), float('nan')])]))
    dirty.observe(torch.tensor([float('nan')]))
    assert clean.scale(INT8) == dirty.scale(INT8) is not None


@pytest.mark.parametrize('name', ['minmax', 'mse'])
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


def test_observers_are_configured_by_name_or_dict():
    assert build_observer(dict(type='mse', bins=64)).bins == 64
    assert isinstance(build_observer('minmax'), MinMaxObserver)


def test_statistics_of_an_observer_are_not_in_its_state_dict():
    assert not MSEObserver().state_dict() and not MinMaxObserver().state_dict()


BATCHES = [torch.randn(500, generator=torch.Generator().manual_seed(i)) * 10.0**(i - 2)
           for i in range(4)]


def scales_of_rank(rank: int, rendezvous: str, answers) -> None:
    """Observe every second batch, reduce, and send the scales."""
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
    scales = {}
    for name in ('minmax', 'mse'):
        observer = build_observer(name)
        for batch in BATCHES[rank::2]:
            observer.observe(batch)
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
    for name in ('minmax', 'mse'):
        observer = build_observer(name)
        for batch in BATCHES:
            observer.observe(batch)
        alone[name] = observer.scale(INT8)
    assert scales[0] == scales[1] == alone
