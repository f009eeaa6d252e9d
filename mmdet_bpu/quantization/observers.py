"""Observers: from the values of a tensor over many images to one symmetric scale."""
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.registry import Registry
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import SMALLEST_SCALE
from mmdet_bpu.quantization.statistics import BINS, Statistics

DEFAULT_OBSERVER = 'mse'
"""How scales are found where nobody says."""

# Beyond these an observer costs memory (8 bytes a bin, of every tensor) and time, and gains nothing.
MOST_BINS, MOST_CANDIDATES = 1 << 16, 1 << 12

# Detectors run in mmdet's scope, where names are looked up.
OBSERVERS = Registry('bpu observer', scope='mmdet')


class Observer(nn.Module, ABC):
    """Sees tensors, forgets them, and proposes a scale. Non-finite values are skipped."""

    @abstractmethod
    def observe(self, x: Tensor) -> Union[None, bool, Tensor]:
        """Take the statistics of ``x`` (any shape) in.

        Returns:
            bool | Tensor, optional: Whether there is NaN in ``x``, if the observer has noticed.
        """

    def end_batch(self) -> None:
        """What comes now is of another batch."""

    @abstractmethod
    def reduce(self) -> None:
        """Combine the statistics of all ranks; every rank ends with the same."""

    @abstractmethod
    def scale(self, integer_range: Tuple[int, int]) -> Optional[float]:
        """Scale for integers of this range; None if nothing was observed."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""


class Criterion(Observer):
    """Reads the scale off :class:`Statistics`, which are the same whatever the criterion.

    Args:
        bins (int): Even number of bins, at most :data:`MOST_BINS`. Defaults to
            :data:`~mmdet_bpu.quantization.statistics.BINS`.

    Raises:
        BpuError: It is no such number.
    """

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        if not _is_count(bins, MOST_BINS) or bins % 2:
            raise BpuError(f'bins: expected an even number from 2 to {MOST_BINS}, found {bins!r}')
        self.statistics = Statistics(bins)

    @abstractmethod
    def threshold(self, largest: Tensor, high: int) -> Tensor:
        """The magnitude that the largest integer stands for, float32.

        Args:
            largest (Tensor): Largest magnitude of all, above 0.
            high (int): The largest integer.
        """

    def scale(self, integer_range: Tuple[int, int]) -> Optional[float]:
        extremes, high = self.statistics.extremes, integer_range[1]
        if not len(extremes):
            return None
        largest = extremes.max()
        if largest == 0:
            return SMALLEST_SCALE
        return max((self.threshold(largest, high) / high).item(), SMALLEST_SCALE)

    def observe(self, x: Tensor) -> Union[bool, Tensor]:
        return self.statistics.observe(x)

    def end_batch(self) -> None:
        self.statistics.end_batch()

    def reduce(self) -> None:
        self.statistics.reduce()

    def reset(self) -> None:
        self.statistics.reset()


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
        if not _is_number(constant) or not 0 < constant <= 1:
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
        if not _is_number(percentile) or not 0 < percentile <= 100:
            raise BpuError(f'percentile: expected a number above 0 and at most 100, found '
                           f'{percentile!r}')
        self.percentile = percentile

    def threshold(self, largest: Tensor, high: int) -> Tensor:
        below = self.statistics.counts.cumsum(0)
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
        if not _is_count(candidates, MOST_CANDIDATES):
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
        criteria = [build_observer(each) for each in of]
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


def statistics_of(observer: Observer) -> Optional[Statistics]:
    """All that observing changes, if loops that hold the values can count them themselves."""
    # An observer made from one of these may do something else.
    counts = type(observer).observe is Criterion.observe
    return observer.statistics if counts else None


def build_observer(config: Union[str, dict]) -> Observer:
    """Observer from its registered name or config dict."""
    config = dict(type=config) if isinstance(config, str) else dict(config)
    return OBSERVERS.build(config)


def check_observer(config: Any, where: str) -> None:
    """Build an observer as a prepared model will.

    Args:
        config (Any): What a config has for an observer.
        where (str): The config's field, for the message.

    Raises:
        BpuError: It is no name or config of a registered observer, or the observer refuses its
            arguments.
    """
    kind = config.get('type') if isinstance(config, Mapping) else config
    if not isinstance(kind, str) or OBSERVERS.get(kind) is None:
        raise BpuError(f'field {where}: expected one of '
                       f'{", ".join(map(repr, sorted(OBSERVERS.module_dict)))}, or a dict with one '
                       f'of them as its type, found {config!r}')
    try:
        observer = build_observer(config)
    except Exception as error:  # an observer of a user refuses its arguments in its own way
        words = ' '.join(str(error).split())
        raise BpuError(f'field {where}: {kind} refuses its arguments: {words}') from error
    if not isinstance(observer, Observer):
        raise BpuError(f'field {where}: expected an Observer, found {type(observer).__name__}')


def check_criterion(config: Any, where: str) -> None:
    """As :func:`check_observer`, of one that reads statistics: weights have no batches.

    Raises:
        BpuError: As there, or it is another observer.
    """
    check_observer(config, where)
    if not isinstance(build_observer(config), Criterion):
        raise BpuError(f'{where}: expected an observer that reads statistics, found {config!r}')


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
