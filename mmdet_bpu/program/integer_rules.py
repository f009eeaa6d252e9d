"""What an integer operation may not be: one predicate per rule, with the reason in words.

Each gives None where the rule is kept. Who asks adds the place and raises: the verifier of the
``bpu`` dialect, the passes that write it, the kernels that plan a program read from a file, and
``prepare``, before anything is trained. The rules are those of docs/numerics.md.
"""
from typing import Optional, Sequence

import numpy as np

from mmdet_bpu.program.dtypes import ELEMENT_OF, INT32_MAX, largest_magnitude

MULTIPLIER_BITS = 15
"""The vendor's own published dump prints 0.1 * 1.0 / 0.20284509658813477 as (32308, 16): a
multiplier of 15 significant bits."""

MAX_SHIFT = 2048
"""Exponents of float64 end at 1074, those of a ratio of two at twice that."""

SEGMENT_ENTRIES, MAX_SEGMENTS = 64, 64
"""The 16-bit table unit: segments, and entries of each; a guard entry closes the last one."""
INT16_VALUES = 65536
MAX_SEGMENT_SHIFT = 10  # one segment of 64 << 10 covers all 65,536 inputs
PADDINGS = ('zeros', 'border')
"""What a sampling reads outside its image."""


def multiplier_fault(multipliers: Sequence[int]) -> Optional[str]:
    """A multiplier is 0 or has exactly 15 significant bits."""
    low, high = 1 << MULTIPLIER_BITS - 1, 1 << MULTIPLIER_BITS
    values = np.asarray(multipliers).ravel()
    odd = np.flatnonzero((values != 0) & ((values < low) | (values >= high)))
    if odd.size:
        return (f'{int(values[odd[0]])} at index {odd[0]} is neither 0 nor in [{low}, {high})')
    return None


def shift_fault(shifts: Sequence[int]) -> Optional[str]:
    """A shift is one that the ratio of two float64 scales can ask for."""
    values = np.asarray(shifts).ravel()
    odd = np.flatnonzero((values < -MAX_SHIFT) | (values > MAX_SHIFT))
    if odd.size:
        return f'{int(values[odd[0]])} at index {odd[0]} is not in [-{MAX_SHIFT}, {MAX_SHIFT}]'
    return None


def product_fault(left: str, right: str) -> Optional[str]:
    """One side of a product of sums is int8; types by either name."""
    if 'si8' in (ELEMENT_OF.get(left, left), ELEMENT_OF.get(right, right)):
        return None
    return (f'takes int8 x int8 or int16 x int8, found {left} x {right}: int16 x int16 products '
            'are not allowed, make one side int8 in the qconfig')


def sum_fault(count: int, dtype: str) -> Optional[str]:
    """The sum of ``count`` values of a type, by either name, fits int32."""
    largest = largest_magnitude(dtype)
    if count * largest <= INT32_MAX:
        return None
    return (f'the sum of {count} {dtype} values does not fit int32; write it in two steps of at '
            f'most {INT32_MAX // largest} elements')


def accumulator_bounds(weight_sums: np.ndarray, largest: int, bias: np.ndarray) -> np.ndarray:
    """Largest magnitude of an accumulator per output channel; it has to stay within int32.

    Args:
        weight_sums (np.ndarray): ``sum |w|`` of each channel, (O, ).
        largest (int): Largest magnitude of what the weights meet.
        bias (np.ndarray): (O, ), of the type of ``weight_sums``.
    """
    return weight_sums * largest + np.abs(bias)


def padding_fault(padding: str) -> Optional[str]:
    """A sampling pads with zeros or with the border."""
    return None if padding in PADDINGS else f'padding is {" or ".join(PADDINGS)}, found {padding}'


def table_fault(in_dtype: str, entries: int, starts: Optional[Sequence[int]],
                shifts: Optional[Sequence[int]]) -> Optional[str]:
    """A table has an entry per si8 input, or segments that tile the si16 range.

    Args:
        in_dtype (str): ``si8`` or ``si16``.
        entries (int): How many there are.
        starts (Sequence[int], optional): First input of each segment.
        shifts (Sequence[int], optional): Entries stand ``1 << shift`` inputs apart.
    """
    if in_dtype == 'si8':
        if starts is None and shifts is None and entries == 256:
            return None
        return f'a table of an si8 input has no segments and 256 entries, found {entries}'
    count = 0 if starts is None else len(starts)
    if not 1 <= count <= MAX_SEGMENTS or shifts is None or len(shifts) != count:
        return (f'a table of an si16 input has 1 to {MAX_SEGMENTS} segments, each with a start and '
                f'a shift, found {count} and {0 if shifts is None else len(shifts)}')
    if entries != count * SEGMENT_ENTRIES + 1:
        return (f'{count} segments and a guard have {count * SEGMENT_ENTRIES + 1} entries, found '
                f'{entries}')
    if min(shifts) < 0 or max(shifts) > MAX_SEGMENT_SHIFT:
        return f'segment shifts must be in [0, {MAX_SEGMENT_SHIFT}], found {list(map(int, shifts))}'
    sizes = SEGMENT_ENTRIES << np.asarray(shifts, np.int64)
    firsts = np.asarray(starts, np.int64) + INT16_VALUES // 2
    expected = np.concatenate([[0], np.cumsum(sizes)])
    if (firsts != expected[:-1]).any() or expected[-1] != INT16_VALUES or (firsts % sizes).any():
        return ('segments must tile the si16 range in order, each aligned to its size; found '
                f'starts {list(map(int, starts))} with shifts {list(map(int, shifts))}')
    return None
