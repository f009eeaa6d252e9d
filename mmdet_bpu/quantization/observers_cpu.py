"""Statistics of a tensor on a CPU in one pass over memory, by compiled loops.

A block is read twice while it lies in the cache: for its largest magnitude, which may widen the
histogram, and to be counted. Magnitudes of floats are in the order of their bits without the sign,
above all of them the infinities and then NaN.
"""
from typing import Tuple

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
def _empty_into(counts, lanes):
    for lane in range(lanes.shape[0]):
        for i in range(counts.size):
            counts[i] += lanes[lane, i]
            lanes[lane, i] = 0


@compiled('void(int64, int64, float32[::1], float32[::1], uint8[::1])')
def _find_largest(start, stop, x, largest, nan):
    """Of each part of ``x``: its largest finite magnitude if it is above ``largest``, and NaN."""
    parts = largest.size
    for part in range(start, stop):
        own = x[x.size * part // parts:x.size * (part + 1) // parts]
        for first in range(0, own.size, _BLOCK):
            finite, top = _largest_bits(own[first:first + _BLOCK].view(np.int32))
            nan[part] |= top > _INFINITE
            if finite >= 0:
                largest[part] = max(largest[part], _as_float(finite))


@compiled('void(int64, int64, float32[::1], float64[:, ::1], float64[::1], float32[::1], uint8[::1])')
def _count(start, stop, x, counts, limits, largest, nan):
    """The same, and each part's magnitudes counted in a histogram of its own over [0, limit)."""
    parts, bins = counts.shape
    lanes = np.zeros((4, bins), np.int32)  # a bin that comes again and again is not waited for
    first_lane, second_lane, third_lane, fourth_lane = lanes[0], lanes[1], lanes[2], lanes[3]
    places = np.empty(_BLOCK, np.uint32)
    for part in range(start, stop):
        own = x[x.size * part // parts:x.size * (part + 1) // parts]
        for first in range(0, own.size, _BLOCK):
            block = own[first:first + _BLOCK]
            finite, top = _largest_bits(block.view(np.int32))
            nan[part] |= top > _INFINITE
            if finite < 0:
                continue
            value = _as_float(finite)
            largest[part] = max(largest[part], value)
            if limits[part] <= value:
                _empty_into(counts[part], lanes)
                limits[part] = _widened(counts[part], limits[part], value)
            per_limit = np.float32(1.0 / limits[part])  # of a power of two: exact
            if top >= _INFINITE:
                for i in range(block.size):
                    magnitude = np.abs(block[i])
                    if magnitude <= value:
                        place = np.uint32(np.int32(magnitude * per_limit * np.float32(bins)))
                        first_lane[min(place, np.uint32(bins - 1))] += 1
                continue
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
        _empty_into(counts[part], lanes)


@compiled('void(int64, int64, float64[:, ::1], float64[::1])')
def _merge(start, stop, counts, limits):
    """Add the histograms of all parts up in that of the first, over the widest of their ranges."""
    widest = 0.0
    for part in range(limits.size):
        widest = max(widest, limits[part])
    for part in range(limits.size):
        if 0.0 < limits[part] < widest:
            limits[part] = _widened(counts[part], limits[part], widest / 2)
        if part:
            counts[0] += counts[part]
    limits[0] = widest


def largest_magnitude(x: Tensor, largest: Tensor) -> bool:
    """Raise ``largest`` (float32, one element) to the largest finite magnitude of ``x``.

    Returns:
        bool: Whether there is NaN in ``x``.
    """
    values, parts = elements(x), len(shares(x.numel()))
    found, nan = np.full(parts, largest.item(), np.float32), np.zeros(parts, np.uint8)
    _find_largest(parts, values, found, nan, work=-(-values.size // parts))
    largest.fill_(float(found.max()))
    return bool(nan.any())


def count_magnitudes(x: Tensor, counts: Tensor, limit: Tensor, largest: Tensor) -> bool:
    """Add magnitudes of ``x`` to a histogram over [0, limit), which is widened if need be.

    Args:
        x (Tensor): Dense, float32.
        counts (Tensor): float64, an even number of bins.
        limit (Tensor): float64, one element; a power of two, or 0 before anything was counted.
        largest (Tensor): float32, one element; the largest finite magnitude so far.

    Returns:
        bool: Whether there is NaN in ``x``.
    """
    values, parts = elements(x), len(shares(x.numel()))
    histograms, limits, found = _of_parts(parts, counts, limit, largest)
    nan = np.zeros(parts, np.uint8)
    _count(parts, values, histograms, limits, found, nan, work=-(-values.size // parts))
    if parts > 1:
        _merge(1, histograms, limits)
        counts.numpy()[:] = histograms[0]
        limit.numpy()[:] = limits[0]
        largest.numpy()[:] = found.max()
    return bool(nan.any())


def _of_parts(parts: int, counts: Tensor, limit: Tensor,
              largest: Tensor) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A histogram for each part; the first one goes on with what has been counted."""
    if parts == 1:
        return counts.numpy().reshape(1, -1), limit.numpy(), largest.numpy()
    histograms = np.zeros((parts, counts.numel()))
    histograms[0] = counts.numpy()
    return histograms, np.full(parts, limit.item()), np.full(parts, largest.item(), np.float32)
