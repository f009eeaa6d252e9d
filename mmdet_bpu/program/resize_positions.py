"""Where a resize reads along one axis: positions in fixed point, decided in integers."""
from typing import Optional, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError

# A step rounded to 2**-20 px is half a unit off at most: after 4096 pixels the position has
# drifted by less than 2**-9 px.
POSITION_BITS = 20
# The largest with which 128 * 2**(2 * bits) and its rounding term fit an int32 accumulator.
FRACTION_BITS = 11
MOST_POSITION_BITS = 30
FRACTION_RULE = (f'expected 0 <= fraction_bits <= position_bits <= {MOST_POSITION_BITS} and at '
                 f'most {FRACTION_BITS} fraction bits')
# Steps around the real one that are tried for a nearest resize.
_NEIGHBOURS = (0, 1, -1, 2, -2)


def fixed_point(pixels: float) -> int:
    """Pixels in units of ``2**-POSITION_BITS`` px, rounded to nearest, ties to even."""
    return int(np.rint(np.ldexp(float(pixels), POSITION_BITS)))


def axis_positions(start: int, step: int, count: int, position_bits: int, fraction_bits: int,
                   size: int) -> np.ndarray:
    """``start + i * step`` for i < ``count``, in ``2**-fraction_bits`` px, moved inside the image.

    Args:
        start (int): Position of result 0, in ``2**-position_bits`` px from the first pixel.
        step (int): Distance of two results, in the same unit.
        count (int): Results along the axis.
        position_bits (int): Of ``start`` and ``step``.
        fraction_bits (int): Of the result, at most ``position_bits``. Rounded half to even; with 0
            bits rounded down, which is the pixel that a nearest resize takes.
        size (int): Pixels along the axis.

    Returns:
        np.ndarray: (count, ) int64 in ``2**-fraction_bits`` px, 0 to ``size - 1`` px.
    """
    positions, drop = [], position_bits - fraction_bits
    for index in range(count):
        value = start + index * step
        if fraction_bits and drop:
            value += (1 << drop - 1) - 1 + (value >> drop & 1)
        positions.append(min(max(value >> drop, 0), size - 1 << fraction_bits))
    return np.array(positions, np.int64)


def nearest_positions(pixels: Sequence[int], size: int, step: float) -> Optional[tuple[int, int]]:
    """Start and step with which rounding down gives the ``pixels`` that a float rule chose.

    Args:
        pixels (Sequence[int]): Pixel of each result.
        size (int): Pixels along the axis; positions outside are moved to its ends.
        step (float): Distance of two results of the float rule, in px.

    Returns:
        tuple[int, int] | None: In ``2**-POSITION_BITS`` px; None if no start fits any step near the
        given one.
    """
    pixels = np.asarray(pixels, np.int64)
    index = np.arange(len(pixels))
    for change in _NEIGHBOURS:
        candidate = fixed_point(step) + change
        offset = index * candidate
        least = ((pixels << POSITION_BITS) - offset)[pixels > 0]
        most = ((pixels + 1 << POSITION_BITS) - 1 - offset)[pixels < size - 1]
        low = int(least.max()) if least.size else None
        high = int(most.min()) if most.size else None
        if low is None or high is None:
            return (low if low is not None else high if high is not None else 0), candidate
        if low <= high:
            # 0 if it will do: torch's own start.
            return min(max(0, low), high), candidate
    return None


def fractions_fit(position_bits: int, fraction_bits: int) -> bool:
    """Whether positions of these fractions have int32 sums and can be rounded to them."""
    return 0 <= fraction_bits <= min(FRACTION_BITS, position_bits) and \
        position_bits <= MOST_POSITION_BITS


def check_fractions(position_bits: int, fraction_bits: int) -> None:
    """Raise :class:`BpuError` unless :func:`fractions_fit`."""
    if not fractions_fit(position_bits, fraction_bits):
        raise BpuError(f'bpu.resize: {FRACTION_RULE}, found {fraction_bits} and {position_bits}')
