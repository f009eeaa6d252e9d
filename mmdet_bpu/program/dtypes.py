"""The integer element types: names, widths and ranges. One table, read by everything else.

A type has two names: the user's, as in ``qconfig`` rules (``int8``), and the element name of the
IR and the program (``si8``).
"""
from dataclasses import dataclass

import torch

from mmdet_bpu.errors import BpuError


@dataclass(frozen=True)
class ElementType:
    """One integer type.

    Attributes:
        name (str): Element name, e.g. ``si8``.
        user (str): The user's name, e.g. ``int8``.
        bits (int): Width of its values.
        nbytes (int): Bytes an element takes in memory (a mask takes one).
        low (int): Smallest value.
        high (int): Largest value.
        torch_dtype (torch.dtype): Tensors that hold it.
    """
    name: str
    user: str
    bits: int
    nbytes: int
    low: int
    high: int
    torch_dtype: torch.dtype


def _signed(bits: int, dtype: torch.dtype) -> ElementType:
    return ElementType(f'si{bits}', f'int{bits}', bits, bits // 8, -2**(bits - 1),
                       2**(bits - 1) - 1, dtype)


ELEMENT_TYPES = {row.name: row for row in (
    ElementType('i1', 'bool', 1, 1, 0, 1, torch.bool),
    # What a camera gives; it has no scale, and no rule of a qconfig names it.
    ElementType('ui8', 'uint8', 8, 1, 0, 255, torch.uint8),
    _signed(8, torch.int8),
    _signed(16, torch.int16),
    _signed(32, torch.int32),
)}
ELEMENT_BYTES = {name: row.nbytes for name, row in ELEMENT_TYPES.items()}
TORCH_DTYPES = {name: row.torch_dtype for name, row in ELEMENT_TYPES.items()}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
INTEGER_RANGES = {name: (row.low, row.high) for name, row in ELEMENT_TYPES.items()}
INT32_MAX = INTEGER_RANGES['si32'][1]
USER_DTYPES = tuple(row.user for row in ELEMENT_TYPES.values()
                    if row.user not in ('bool', 'uint8'))
"""What a ``qconfig`` rule may name, narrowest first."""
ELEMENT_OF = {row.user: row.name for row in ELEMENT_TYPES.values()}
BITS = {row.user: row.bits for row in ELEMENT_TYPES.values()}


def integer_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an element type, by either name.

    Raises:
        BpuError: for a name that is not an integer element type.
    """
    try:
        return INTEGER_RANGES[ELEMENT_OF.get(dtype, dtype)]
    except KeyError:
        raise BpuError(f'unknown element type {dtype!r}: expected one of '
                       f'{", ".join(INTEGER_RANGES)}') from None


def largest_magnitude(dtype: str) -> int:
    """Largest absolute value of an element type, e.g. 128 for ``si8``."""
    low, high = integer_range(dtype)
    return max(-low, high)
