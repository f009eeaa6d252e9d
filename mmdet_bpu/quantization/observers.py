"""Observers: from the values of a tensor over many images to one symmetric scale.

Those that come with the package are in :mod:`mmdet_bpu.quantization.criteria`.
"""
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, Mapping, Optional, Tuple, Union

from mmengine.registry import Registry
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import SMALLEST_SCALE
from mmdet_bpu.quantization.statistics import BINS, Statistics

DEFAULT_OBSERVER = 'mse'
"""How scales are found where nobody says."""

# Beyond it an observer costs memory, 8 bytes a bin of every tensor, and gains nothing.
MOST_BINS = 1 << 16

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
        if not is_count(bins, MOST_BINS) or bins % 2:
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


def is_number(value: Any) -> bool:
    """Whether an argument is a real number."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_count(value: Any, most: int) -> bool:
    """Whether an argument is a whole number from 1 to ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
