"""Statistics of a tensor on a CPU in one pass over memory, by compiled loops.

A block is read twice while it lies in the cache: for its largest magnitude, which may widen the
histogram, and to be counted. Magnitudes of floats are in the order of their bits without the sign,
above all of them the infinities and then NaN.
"""
from typing import Optional

import numpy as np
from torch import Tensor

from mmdet_bpu.kernels.compiled_loops import compiled, elements, inner, shares

_BLOCK = 4096  # elements
_FIRST_LIMIT = 2.0**-20
_MAGNITUDE, _INFINITE = np.int32(0x7fffffff), np.int32(0x7f800000)


@inner
def _largest_bits(bits):
    """(largest magnitude that is finite, or -1; largest of all), as integers."""
    largest = np.int32(-1)
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        largest = magnitude if magnitude > largest else largest
    if largest < _INFINITE:
        return largest, largest
    finite = np.int32(-1)
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude < _INFINITE and magnitude > finite:
            finite = magnitude
    return finite, largest


@inner
def _as_float(bits):
    one = np.empty(1, np.int32)
    one[0] = bits
    return one.view(np.float32)[0]


@inner
def _widened(counts, limit, largest):
    """A power of two above ``largest``: ``limit``, or more; then neighbouring bins are added."""
    if limit == 0.0:
        limit = _FIRST_LIMIT
        while limit <= largest:
            limit *= 2.0
        return limit
    half = counts.size // 2
    while limit <= largest:
        for i in range(half):
            counts[i] = counts[2 * i] + counts[2 * i + 1]
        counts[half:] = 0.0
        limit *= 2.0
    return limit


@inner
def empty_into(counts, lanes):
    for lane in range(lanes.shape[0]):
        for i in range(counts.size):
            counts[i] += lanes[lane, i]
            lanes[lane, i] = 0


@inner
def count(block, counts, limit, largest, nan, lanes, places):
    """Take a block of at most as many elements as ``places`` in; no bins: its extreme alone.

    ``limit``, ``largest`` and ``nan`` have one element.
    """
    finite, top = _largest_bits(block.view(np.int32))
    nan[0] |= top > _INFINITE
    if finite < 0:
        return
    value, bins = _as_float(finite), counts.size
    largest[0] = max(largest[0], value)
    if bins == 0:
        return
    if limit[0] <= value:
        empty_into(counts, lanes)
        limit[0] = _widened(counts, limit[0], value)
    per_limit = np.float32(1.0 / limit[0])  # of a power of two: exact
    # A bin that comes again and again is not waited for.
    first_lane, second_lane, third_lane, fourth_lane = lanes[0], lanes[1], lanes[2], lanes[3]
    if top >= _INFINITE:
        for i in range(block.size):
            magnitude = np.abs(block[i])
            if magnitude <= value:
                place = np.uint32(np.int32(magnitude * per_limit * np.float32(bins)))
                first_lane[min(place, np.uint32(bins - 1))] += 1
        return
    for i in range(block.size):
        place = np.int32(np.abs(block[i]) * per_limit * np.float32(bins))
        places[i] = min(place, np.int32(bins - 1))
    fours = block.size // 4
    for four in range(fours):
        i = np.uint64(four * 4)
        first_lane[places[i]] += 1
        second_lane[places[i + np.uint64(1)]] += 1
        third_lane[places[i + np.uint64(2)]] += 1
        fourth_lane[places[i + np.uint64(3)]] += 1
    for i in range(fours * 4, block.size):
        first_lane[places[i]] += 1


@compiled('void(int64, int64, float32[::1], float64[:, ::1], float64[::1], float32[::1], '
          'uint8[::1])')
def _count_parts(start, stop, x, counts, limits, largest, nan):
    """Each part of ``x`` in a histogram of its own."""
    parts, bins = counts.shape
    lanes, places = np.zeros((4, bins), np.int32), np.empty(_BLOCK, np.uint32)
    for part in range(start, stop):
        own = x[x.size * part // parts:x.size * (part + 1) // parts]
        for first in range(0, own.size, _BLOCK):
            count(own[first:first + _BLOCK], counts[part], limits[part:part + 1],
                  largest[part:part + 1], nan[part:part + 1], lanes, places)
        empty_into(counts[part], lanes)


def _merged(histograms: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The histograms (parts, bins) of all parts added up, over the widest of their ranges."""
    bins = histograms.shape[1]
    total = np.zeros(bins)
    for counts, limit in zip(histograms, limits):
        if limit > 0:  # both are powers of two
            doublings = int(np.log2(limits.max() / limit))
            total += np.bincount(np.arange(bins) >> doublings, counts, bins)
    return total


class Tally:
    """What compiled loops find of one tensor, each share of them by itself.

    Args:
        parts (int): Number of shares.
        largest (Tensor): float32, one element; the largest finite magnitude so far, or -1.
        counts (Tensor, optional): float64, an even number of bins over [0, ``limit``). Without it
            nothing is counted.
        limit (Tensor, optional): float64, one element; a power of two, or 0 before anything was
            counted.

    Attributes:
        arrays (tuple[np.ndarray]): Of each part: histogram, its limit, largest magnitude, and
            whether there was NaN; what :func:`count` writes.
    """

    def __init__(self, parts: int, largest: Tensor, counts: Optional[Tensor] = None,
                 limit: Optional[Tensor] = None) -> None:
        self._largest, self._counts, self._limit = largest, counts, limit
        bins = 0 if counts is None else counts.numel()
        histograms, limits = np.zeros((parts, bins)), np.zeros(parts)
        if bins:  # the first part goes on with what has been counted
            histograms[0], limits[0] = counts.numpy(), limit.item()
        self.arrays = (histograms, limits, np.full(parts, largest.item(), np.float32),
                       np.zeros(parts, np.uint8))

    def finish(self) -> bool:
        """Give the observer's tensors what was found; returns whether there was NaN."""
        histograms, limits, largest, nan = self.arrays
        self._largest.fill_(float(largest.max()))
        if self._counts is not None:
            self._counts.numpy()[:] = _merged(histograms, limits)
            self._limit.fill_(limits.max())
        return bool(nan.any())


def take_in(x: Tensor, *statistics: Tensor) -> bool:
    """Count the magnitudes of ``x`` (dense, float32); returns whether there is NaN in it.

    Args:
        x (Tensor): Any shape.
        statistics (Tensor): Those of a :class:`Tally`.
    """
    values, parts = elements(x), len(shares(x.numel()))
    tally = Tally(parts, *statistics)
    _count_parts(parts, values, *tally.arrays, work=-(-values.size // parts))
    return tally.finish()
