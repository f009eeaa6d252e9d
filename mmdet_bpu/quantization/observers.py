"""Observers: from the values of a tensor over many images to one symmetric scale."""
from abc import ABC, abstractmethod
from typing import Any, Mapping, Optional, Tuple, Union

import torch
import torch.distributed as dist
from mmengine.registry import Registry
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import SMALLEST_SCALE
from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.quantization import observers_cpu

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
    def observe(self, x: Tensor) -> Union[None, bool, Tensor]:
        """Take the statistics of ``x`` (any shape) in.

        Returns:
            bool | Tensor, optional: Whether there is NaN in ``x``, if the observer has noticed.
        """

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

    @property
    def statistics(self) -> Tuple[Tensor, ...]:
        """What ``observers_cpu.Tally`` takes."""
        return (self.largest, )

    def observe(self, x: Tensor) -> Union[bool, Tensor]:
        if not x.numel():
            return False
        x = x.detach().float()
        if compiled_loops.usable() and compiled_loops.fits(x):
            return observers_cpu.take_in(x, *self.statistics)
        magnitude, nan = _finite_magnitude(x)
        torch.maximum(self.largest, magnitude.amax(), out=self.largest)
        return nan

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

    @property
    def statistics(self) -> Tuple[Tensor, ...]:
        """What ``observers_cpu.Tally`` takes."""
        return self.largest, self.counts, self.limit

    def observe(self, x: Tensor) -> Union[bool, Tensor]:
        if not x.numel():
            return False
        x = x.detach().float()
        if compiled_loops.usable() and compiled_loops.fits(x):
            return observers_cpu.take_in(x, *self.statistics)
        magnitude, nan = _finite_magnitude(x)
        largest = magnitude.amax()
        torch.maximum(self.largest, largest, out=self.largest)
        self._widen(_power_of_two_above(largest).to(self.limit))
        # Infinities and NaN are below the first bin.
        share = magnitude * (1 / self.limit).to(magnitude)
        self.counts += torch.histc(share, self.bins, 0.0, 1.0).to(self.counts)
        return nan

    def _widen(self, limit: Tensor) -> None:
        """Let the histogram reach to ``limit`` if it does not, merging bins; nothing waits."""
        limit = torch.maximum(self.limit, limit)
        doublings = torch.where(self.limit > 0, torch.log2(limit / self.limit).round(), 0)
        bins = torch.arange(self.bins, device=limit.device) >> doublings.long()
        self.counts.copy_(torch.zeros_like(self.counts).index_add_(0, bins, self.counts))
        self.limit.copy_(limit)

    def reduce(self) -> None:
        reduced(self.largest, dist.ReduceOp.MAX)
        self._widen(reduced(self.limit.clone(), dist.ReduceOp.MAX))
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


def statistics_of(observer: Observer) -> Optional[Tuple[Tensor, ...]]:
    """All that observing changes, if loops that hold the values can count them themselves."""
    # An observer made from one of these may do something else.
    return observer.statistics if type(observer) in (MinMaxObserver, MSEObserver) else None


def _finite_magnitude(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Magnitudes of ``x`` with -1 for what is not finite, and whether there is NaN in it.

    On a GPU nothing waits for a result.
    """
    magnitude = x.abs().flatten()
    top = magnitude.amax()  # NaN if there is any
    if x.is_cuda or not torch.isfinite(top):
        magnitude = torch.nan_to_num_(magnitude, nan=-1.0, posinf=-1.0)
    return magnitude, torch.isnan(top)


def _power_of_two_above(largest: Tensor) -> Tensor:
    """The least power of two above a magnitude, from 2**-20 on; 0 for -1, which is none."""
    exponent = torch.frexp(largest).exponent.double()
    limit = torch.where(largest > 0, torch.exp2(exponent), 0.0).clamp(min=2.0**-20)
    return torch.where(largest < 0, 0.0, limit)


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
