"""The criteria: where on a tensor's histogram its largest integer lies."""
from typing import Mapping, Sequence, Union

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.observers import (OBSERVERS, Criterion, build_observer,
                                              check_criterion, is_count, is_number)
from mmdet_bpu.quantization.statistics import BINS, Statistics

MOST_CANDIDATES = 1 << 12  # beyond it a search costs time, and gains nothing


@OBSERVERS.register_module(name='minmax')
class MinMaxObserver(Criterion):
    """The largest magnitude decides: nothing saturates on what was seen."""

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        return largest


@OBSERVERS.register_module(name='moving_average')
class MovingAverageObserver(Criterion):
    """A moving average of the largest magnitude of each batch, in the order of the batches.

    Args:
        constant (float): How far each batch moves it, above 0 and at most 1. Defaults to 0.1.
        bins (int): See :class:`Criterion`.

    Raises:
        BpuError: One of them is no such number.
    """

    def __init__(self, constant: float = 0.1, bins: int = BINS) -> None:
        super().__init__(bins)
        if not is_number(constant) or not 0 < constant <= 1:
            raise BpuError(f'constant: expected a number above 0 and at most 1, found {constant!r}')
        self.constant = constant

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        first, *others = self.statistics.extremes.tolist()
        average = first
        for extreme in others:
            average += self.constant * (extreme - average)
        return torch.full_like(largest, average)


@OBSERVERS.register_module(name='percentile')
class PercentileObserver(Criterion):
    """The magnitude below which so many of all values lie, to the width of a bin.

    Args:
        percentile (float): Above 0 and at most 100. Defaults to 99.99.
        bins (int): See :class:`Criterion`.

    Raises:
        BpuError: One of them is no such number.
    """

    def __init__(self, percentile: float = 99.99, bins: int = BINS) -> None:
        super().__init__(bins)
        if not is_number(percentile) or not 0 < percentile <= 100:
            raise BpuError(f'percentile: expected a number above 0 and at most 100, found '
                           f'{percentile!r}')
        self.percentile = percentile

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        below = self.statistics.counts.cpu().cumsum(0)  # on CUDA it is not deterministic
        bins = int((below < below[-1] * (self.percentile / 100)).sum()) + 1
        upper_edge = self.statistics.limit[0] * bins / self.statistics.bins
        return torch.minimum(largest, upper_edge.to(largest))


class SearchingCriterion(Criterion):
    """Tries thresholds and takes the best.

    Args:
        bins (int): See :class:`Criterion`.
        candidates (int): Number of thresholds tried between 1/``candidates`` of the largest
            magnitude and all of it, at most :data:`MOST_CANDIDATES`. Defaults to 128.

    Raises:
        BpuError: One of them is no such number.
    """

    def __init__(self, bins: int = BINS, candidates: int = 128) -> None:
        super().__init__(bins)
        if not is_count(candidates, MOST_CANDIDATES):
            raise BpuError(f'candidates: expected a whole number from 1 to {MOST_CANDIDATES}, found '
                           f'{candidates!r}')
        self.candidates = candidates


@OBSERVERS.register_module(name='mse')
class MSEObserver(SearchingCriterion):
    """The scale with the least mean squared error, searched on the histogram."""

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        thresholds = largest * _ratios(self.candidates, largest)
        return thresholds[torch.argmin(squared_errors(self.statistics, thresholds / high, high))]


@OBSERVERS.register_module(name='kl')
class KLObserver(SearchingCriterion):
    """The threshold at which the rounded magnitudes are distributed most like the real ones.

    By the least Kullback-Leibler divergence, as Migacz, "8-bit inference with TensorRT" (GTC 2017):
    what lies above the threshold counts in the last bin that is kept, and the bins of one integer
    share their counts evenly. Of thresholds below as many bins as there are integers nothing is known:
    they are not tried, and where there is no other the largest magnitude is taken.
    """

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        counts = self.statistics.counts.cpu().numpy().copy()
        width = self.statistics.limit[0] / len(counts)
        used = int(np.flatnonzero(counts)[-1]) + 1
        counts[0] = counts[1]  # zeros, of a relu say, would hide how all else is distributed
        kept = np.unique(np.ceil(used * np.arange(1, self.candidates + 1) / self.candidates))
        kept = kept[kept > high].astype(int)
        if not len(kept):
            return largest
        best = min(kept[::-1], key=lambda bins: divergence(counts[:used], bins, high + 1))
        return torch.minimum(largest, (best * width).to(largest))


@OBSERVERS.register_module(name='mix')
class MixObserver(Criterion):
    """Of several criteria the one whose scale has the least squared error on the histogram.

    Args:
        of (Sequence): Names or configs of criteria. Defaults to minmax, percentile, mse and kl.
        bins (int): See :class:`Criterion`.

    Raises:
        BpuError: One of ``of`` is no criterion, or refuses its arguments.
    """

    def __init__(self, of: Sequence[Union[str, dict]] = ('minmax', 'percentile', 'mse', 'kl'),
                 bins: int = BINS) -> None:
        super().__init__(bins)
        if not isinstance(of, (list, tuple)) or not of:
            raise BpuError(f'of: expected a list of observers, found {of!r}')
        for index, each in enumerate(of):
            check_criterion(each, f'of[{index}]')
            if isinstance(each, Mapping) and 'bins' in each:
                raise BpuError(f'of[{index}].bins: all criteria of mix read its own histogram; set bins '
                               'beside of')
        criteria = [build_observer(each) for each in of]
        if any(isinstance(each, MixObserver) for each in criteria):
            raise BpuError(f'of: expected criteria other than mix, found {of!r}')
        for each in criteria:
            each.statistics = self.statistics
        self.criteria = nn.ModuleList(criteria)

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        found = torch.stack([each.threshold(largest, high) for each in self.criteria])
        return found[torch.argmin(squared_errors(self.statistics, found / high, high))]


def squared_errors(statistics: Statistics, steps: Tensor, high: int) -> Tensor:
    """Sum of the squared errors of all values that were counted, for each of some scales.

    Per bin it is the squared distance of the bin's centre to the nearest representable value, and
    step**2 / 12 where bins are wider than steps.

    Args:
        statistics (Statistics): What was counted.
        steps (Tensor): Scales, float32 (n, ).
        high (int): The largest integer.

    Returns:
        Tensor: float64 (n, ).
    """
    width = statistics.limit / statistics.bins
    centres = (torch.arange(statistics.bins, device=width.device) + 0.5) * width
    steps = steps.double()[:, None]
    rounded = torch.round(centres / steps).clamp_(max=high).mul_(steps)
    errors = rounded.sub_(centres).square_()
    inside = torch.minimum(steps, width)**2 / 12
    errors = torch.where(centres <= high * steps, torch.maximum(errors, inside), errors)
    return errors.mul_(statistics.counts).sum(1)  # of each row alone, however many threads there are


def divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """Kullback-Leibler divergence of a histogram to itself cut off and rounded.

    Args:
        counts (np.ndarray): (bins, ).
        kept (int): Bins below the threshold, at least ``levels``.
        levels (int): Number of magnitudes that integers have.

    Returns:
        float: In nats.
    """
    inside = counts[:kept]
    real = inside.copy()
    real[-1] += counts[kept:].sum()
    starts = np.arange(levels) * kept // levels
    shared = np.add.reduceat(inside, starts) / np.maximum(
        np.add.reduceat((inside > 0).astype(np.float64), starts), 1)
    sizes = np.diff(np.append(starts, kept))
    rounded = np.where(inside > 0, np.repeat(shared, sizes), 0.0)
    real, rounded = real / real.sum(), rounded / max(rounded.sum(), 1.0)
    present = real > 0
    # A bin that only holds what was cut off has no rounded counterpart: next to nothing of one.
    return float((real[present] * np.log(
        real[present] / np.maximum(rounded[present], 1e-12))).sum())


def _ratios(candidates: int, like: Tensor) -> Tensor:
    return torch.arange(1, candidates + 1, device=like.device) / candidates
