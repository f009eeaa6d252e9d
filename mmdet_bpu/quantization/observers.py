"""Observers: from the values of a tensor over many images to one symmetric scale."""
from abc import ABC, abstractmethod
from typing import Any, Mapping, Optional, Tuple, Union

import torch
import torch.distributed as dist
from mmengine.registry import Registry
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import SMALLEST_SCALE

DEFAULT_OBSERVER = 'mse'
"""How scales are found where nobody says."""

# Beyond these an observer costs memory (8 bytes a bin, of every tensor) and time, and gains nothing.
MOST_BINS, MOST_CANDIDATES = 1 << 16, 1 << 12

# Detectors run in mmdet's scope, where names are looked up.
OBSERVERS = Registry('bpu observer', scope='mmdet')


def reduced(tensor: Tensor, op) -> Tensor:
    """``tensor`` combined over all processes, in place."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor, op)
    return tensor


class Observer(nn.Module, ABC):
    """Sees tensors, forgets them, and proposes a scale. Non-finite values are skipped."""

    @abstractmethod
    def observe(self, x: Tensor) -> None:
        """Take the statistics of ``x`` (any shape) in."""

    @abstractmethod
    def reduce(self) -> None:
        """Combine the statistics of all ranks; every rank ends with the same."""

    @abstractmethod
    def scale(self, integer_range: Tuple[int, int]) -> Optional[float]:
        """Scale for integers of this range; None if nothing was observed."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""


@OBSERVERS.register_module(name='minmax')
class MinMaxObserver(Observer):
    """The largest magnitude decides: nothing saturates on what was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('largest', torch.full((1, ), -1.0), persistent=False)

    def observe(self, x: Tensor) -> None:
        magnitude = x.float().abs().flatten()
        if not magnitude.numel():
            return
        largest = magnitude.max()
        if not torch.isfinite(largest):
            magnitude = magnitude[torch.isfinite(magnitude)]
            if not magnitude.numel():
                return
            largest = magnitude.max()
        torch.maximum(self.largest, largest.to(self.largest), out=self.largest)

    def reduce(self) -> None:
        reduced(self.largest, dist.ReduceOp.MAX)

    def scale(self, integer_range: Tuple[int, int]) -> Optional[float]:
        if self.largest.item() < 0:
            return None
        return max(self.largest.item() / integer_range[1], SMALLEST_SCALE)

    def reset(self) -> None:
        self.largest.fill_(-1.0)


@OBSERVERS.register_module(name='mse')
class MSEObserver(Observer):
    """The scale with the least mean squared error, searched on a histogram of magnitudes.

    The histogram covers ``[0, limit)``; ``limit`` is a power of two that doubles when a larger
    value comes (neighbouring bins are added), so counts stay exact and histograms of several
    ranks can be added. The error of a candidate is, per bin, the squared distance of the bin's
    centre to the nearest representable value, and step**2 / 12 where bins are wider than steps.

    Args:
        bins (int): Even number of bins, at most :data:`MOST_BINS`. Defaults to 2048.
        candidates (int): Number of thresholds tried between 1/``candidates`` of the largest
            magnitude and all of it, at most :data:`MOST_CANDIDATES`. Defaults to 128.

    Raises:
        BpuError: One of them is no such number.
    """

    def __init__(self, bins: int = 2048, candidates: int = 128) -> None:
        super().__init__()
        if not _is_count(bins, MOST_BINS) or bins % 2:
            raise BpuError(f'bins: expected an even number from 2 to {MOST_BINS}, found {bins!r}')
        if not _is_count(candidates, MOST_CANDIDATES):
            raise BpuError(f'candidates: expected a whole number from 1 to {MOST_CANDIDATES}, '
                           f'found {candidates!r}')
        self.bins, self.candidates = bins, candidates
        self.register_buffer('counts', torch.zeros(bins, dtype=torch.float64), persistent=False)
        self.register_buffer('limit', torch.zeros(1, dtype=torch.float64), persistent=False)
        self.register_buffer('largest', torch.full((1, ), -1.0), persistent=False)

    def observe(self, x: Tensor) -> None:
        magnitude = x.float().abs().flatten()
        if not magnitude.numel():
            return
        largest = magnitude.max().item()
        if largest != largest or largest == float('inf'):
            magnitude = magnitude[torch.isfinite(magnitude)]
            if not magnitude.numel():
                return
            largest = magnitude.max().item()
        self.largest.clamp_(min=largest)
        self._widen(largest)
        counts = torch.histc(magnitude, self.bins, 0.0, self.limit.item())
        self.counts += counts.to(self.counts)

    def _widen(self, largest: float) -> None:
        """Make ``limit`` a power of two above ``largest``, merging bins."""
        if self.limit.item() == 0.0:
            limit = 2.0**-20
            while limit <= largest:
                limit *= 2
            self.limit.fill_(limit)
        while self.limit.item() <= largest:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts.zero_()
            self.counts[:self.bins // 2] = merged
            self.limit.mul_(2)

    def reduce(self) -> None:
        largest = reduced(self.largest, dist.ReduceOp.MAX).item()
        if largest >= 0:
            self._widen(largest)
        limit = reduced(self.limit.clone(), dist.ReduceOp.MAX).item()
        while 0 < self.limit.item() < limit:
            self._widen(self.limit.item())
        reduced(self.counts, dist.ReduceOp.SUM)

    def scale(self, integer_range: Tuple[int, int]) -> Optional[float]:
        largest, high = self.largest.item(), integer_range[1]
        if largest < 0:
            return None
        if largest == 0:
            return SMALLEST_SCALE
        width = self.limit / self.bins
        centres = (torch.arange(self.bins, device=width.device) + 0.5) * width
        ratios = torch.arange(1, self.candidates + 1, device=width.device) / self.candidates
        errors = [self._error(centres, width, largest * r / high, high) for r in ratios]
        best = torch.argmin(torch.stack(errors))
        return max((largest * ratios[best] / high).item(), SMALLEST_SCALE)

    def _error(self, centres: Tensor, width: Tensor, step: Tensor, high: int) -> Tensor:
        rounded = torch.clamp(torch.round(centres / step), max=high) * step
        error = (centres - rounded)**2
        inside = torch.clamp(step, max=width.item())**2 / 12
        error = torch.where(centres <= high * step, torch.maximum(error, inside.expand_as(error)),
                            error)
        return (error * self.counts).sum()

    def reset(self) -> None:
        self.counts.zero_()
        self.limit.zero_()
        self.largest.fill_(-1.0)


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


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
