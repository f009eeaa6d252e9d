"""Unary functions as tables: 256 entries for si8, piecewise linear for si16.

An si16 table has at most 64 segments. A segment covers ``64 << shift`` consecutive inputs,
aligned to its size, with entries every ``1 << shift`` inputs; between entries the value is
interpolated in integers. The entry after a segment's last is the first of the next segment; one
guard entry closes the last. This is what the hardware's table unit takes (docs/numerics.md).
"""
import heapq
from dataclasses import dataclass
from typing import Callable

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.integer_rules import (INT16_VALUES, MAX_SEGMENT_SHIFT, MAX_SEGMENTS,
                                             SEGMENT_ENTRIES, table_fault)

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Table:
    """A table and how well it follows its function.

    Attributes:
        attrs (dict): Attributes of bpu.table: ``entries``, and for si16 input ``segment_start``
            and ``segment_shift``, as int64 arrays.
        max_error (float): Largest distance to the function, saturated to the result's range, in
            output LSB: at least 0.5 where rounding alone costs that.
    """

    attrs: dict[str, np.ndarray]
    max_error: float


def build_table(function: Function, in_dtype: str, in_scale: float, out_dtype: str,
                out_scale: float) -> Table:
    """Tabulate ``function(q * in_scale) / out_scale``, rounded half to even and saturated.

    Args:
        function: Vectorised; takes and returns float64 arrays of one shape. Infinities saturate.
        in_dtype (str): ``si8`` or ``si16``.
        in_scale (float): Scale of the input.
        out_dtype (str): ``si8`` or ``si16``.
        out_scale (float): Scale of the result.

    Raises:
        BpuError: for other types, a scale that is not positive, or where the function is not a
            number.
    """
    if in_dtype not in ('si8', 'si16') or out_dtype not in ('si8', 'si16'):
        raise BpuError(f'a table maps si8 or si16 to si8 or si16, found {in_dtype} to {out_dtype}')
    for name, scale in (('input', in_scale), ('output', out_scale)):
        if not (np.isfinite(scale) and scale > 0):
            raise BpuError(f'the {name} scale of a table must be positive, found {scale}')
    low, high = integer_range(in_dtype)
    codes = np.arange(low, high + 1)
    limits = integer_range(out_dtype)
    exact = _sample(function, codes, in_scale, out_scale, limits)
    if in_dtype == 'si8':
        entries = np.rint(exact).astype(np.int64)
        return Table({'entries': entries}, float(np.abs(entries - exact).max()))
    return _fit_segments(exact, _guard(function, in_scale, out_scale, limits, exact))


def _sample(function: Function, codes: np.ndarray, in_scale: float, out_scale: float,
            limits: tuple[int, int]) -> np.ndarray:
    """Values of the function in output LSB, clamped to the output range, as float64."""
    x = codes * float(in_scale)
    with np.errstate(all='ignore'):
        y = np.asarray(function(x), np.float64) / float(out_scale)
    if y.shape != x.shape:
        raise BpuError(f'the function of a table returned shape {y.shape} for {x.shape}: it must '
                       'work element by element')
    if np.isnan(y).any():
        raise BpuError(f'the function of a table is not a number at x = {x[np.isnan(y)][0]:g}: '
                       'clamp its input to where it is defined')
    return y.clip(*limits)


def _guard(function: Function, in_scale: float, out_scale: float, limits: tuple[int, int],
           exact: np.ndarray) -> float:
    """Value one step past the last input; the last value where the function ends there."""
    try:
        return float(_sample(function, np.array([INT16_VALUES // 2]), in_scale, out_scale,
                             limits)[0])
    except BpuError:
        return float(exact[-1])


def _fit_segments(exact: np.ndarray, guard: float) -> Table:
    """Split the worst dyadic segment until 64 segments are used or rounding alone is left.

    Any table with a smaller error must split that segment too, so this greedy choice gives the
    smallest maximal error that 64 aligned segments allow.
    """
    samples = np.append(exact, guard)
    rounded = np.rint(samples).astype(np.int64)

    def error(start: int, shift: int) -> float:
        nodes = rounded[start:start + (SEGMENT_ENTRIES << shift) + 1:1 << shift]
        values = _interpolate(nodes, shift)
        return float(np.abs(values - exact[start:start + len(values)]).max())

    heap = [(-error(0, MAX_SEGMENT_SHIFT), 0, MAX_SEGMENT_SHIFT)]
    while len(heap) < MAX_SEGMENTS and -heap[0][0] > 0.5 and heap[0][2] > 0:
        _, start, shift = heapq.heappop(heap)
        for half in (start, start + (SEGMENT_ENTRIES << shift - 1)):
            heapq.heappush(heap, (-error(half, shift - 1), half, shift - 1))
    segments = sorted((start, shift) for _, start, shift in heap)
    entries = np.concatenate([rounded[start:start + (SEGMENT_ENTRIES << shift):1 << shift]
                              for start, shift in segments] + [rounded[-1:]])
    attrs = {'segment_start': np.array([start for start, _ in segments]) - INT16_VALUES // 2,
             'segment_shift': np.array([shift for _, shift in segments]), 'entries': entries}
    return Table(attrs, max(-negative for negative, _, _ in heap))


def _interpolate(nodes: np.ndarray, shift: int) -> np.ndarray:
    """All values between nodes ``1 << shift`` inputs apart, in integers.

    ``y = y0 + round_half_even((y1 - y0) * t / 2**shift)`` for t in [0, 2**shift).
    """
    if shift == 0:
        return nodes[:-1]
    product = np.diff(nodes)[:, None] * np.arange(1 << shift)
    odd = (product >> shift) & 1
    return (nodes[:-1, None] + ((product + (1 << shift - 1) - 1 + odd) >> shift)).ravel()


def expand_table(attrs: dict) -> np.ndarray:
    """All outputs of a table in order of the input: 256 of them, or 65,536, as int64.

    Raises:
        BpuError: if segments do not tile the si16 range or entries are missing.
    """
    entries = np.asarray(attrs['entries'], np.int64)
    starts, shifts = attrs.get('segment_start'), attrs.get('segment_shift')
    fault = table_fault('si8' if starts is None else 'si16', len(entries), starts, shifts)
    if fault:
        raise BpuError(fault)
    if starts is None:
        return entries
    return np.concatenate([
        _interpolate(entries[i * SEGMENT_ENTRIES:(i + 1) * SEGMENT_ENTRIES + 1], int(shift))
        for i, shift in enumerate(shifts)])
