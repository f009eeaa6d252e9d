"""What calibration keeps of a tensor, and that nothing else is needed."""
import numpy as np
import pytest
import torch

from mmdet_bpu.quantization.observers import build_observer
from mmdet_bpu.quantization.statistics import Statistics


@pytest.mark.parametrize('threads', [1, 3])
def test_the_histogram_is_that_of_numpy(path, threads):
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal(size) * size_of).astype(np.float32)
               for size, size_of in ((5000, 1e-3), (250_001, 1.0), (4096, 30.0), (1, 1e-6))]
    batches[1][:4] = np.nan, np.inf, -np.inf, 0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    statistics = Statistics()
    nan = [bool(statistics.observe(torch.from_numpy(batch))) for batch in batches]
    torch.set_num_threads(before)
    assert nan == [False, True, False, False]
    seen = np.abs(np.concatenate(batches))
    seen = seen[np.isfinite(seen)]
    assert statistics.largest.item() == seen.max() < statistics.limit.item() <= 2 * seen.max()
    expected, _ = np.histogram(seen, 2048, (0, statistics.limit.item()))
    np.testing.assert_array_equal(statistics.counts, expected)


def test_order_of_batches_does_not_matter():
    parts = [torch.full((5, ), value) for value in (0.001, 7.0, 0.3, 130.0)]
    found = []
    for order in (parts, parts[::-1]):
        statistics = Statistics()
        for part in order:
            statistics.observe(part)
        found.append((statistics.limit.item(), statistics.counts))
    assert found[0][0] == found[1][0] == 256, 'the histogram widened by doubling'
    assert torch.equal(found[0][1], found[1][1]) and found[0][1].sum() == 20


def test_a_value_at_the_limit_of_the_histogram_is_counted():
    statistics = Statistics()
    statistics.observe(torch.tensor([1.0]))
    statistics.observe(torch.tensor([2.0, 4.0]))
    assert statistics.counts.sum().item() == 3


def test_extremes_are_those_of_the_batches_in_order():
    statistics = Statistics()
    for number in range(40):
        statistics.observe(torch.tensor([0.5, -float(number)]))
        statistics.observe(torch.tensor([float('inf')] if number == 3 else [0.25]))
        statistics.end_batch()
    statistics.observe(torch.tensor([float('nan')]))
    statistics.end_batch()  # nothing finite: as if it were not there
    statistics.observe(torch.tensor([7.0]))
    assert statistics.extremes.tolist() == [0.5, *map(float, range(1, 40)), 7.0]
    statistics.reset()
    assert not len(statistics.extremes) and not statistics.counts.any()


@pytest.mark.parametrize('name', ['minmax', 'moving_average', 'percentile', 'mse', 'kl', 'mix'])
def test_scales_from_what_was_kept_are_those_from_the_values(path, name):
    generator = torch.Generator().manual_seed(0)
    observers = build_observer('minmax'), build_observer(name)
    for size in (1, 5, 2, 0.1):
        batch = size * torch.randn(3000, generator=generator)
        for observer in observers:
            observer.observe(batch)
            observer.end_batch()
    again = build_observer(name)
    again.statistics.take(observers[0].statistics.as_plain())
    for integers in ((-128, 127), (-32768, 32767)):
        assert again.scale(integers) == observers[1].scale(integers)


def test_of_a_tensor_that_was_never_seen_nothing_is_kept():
    statistics = Statistics()
    plain = statistics.as_plain()
    assert not len(plain['counts']) and not len(plain['extremes'])
    statistics.take(plain)
    assert build_observer('mse').scale((-128, 127)) is None
