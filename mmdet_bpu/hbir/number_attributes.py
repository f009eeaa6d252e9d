"""Lists of numbers as attributes, made at once: a detector's scales and multipliers are 600,000.

xDSL packs, unpacks and verifies each number that it makes an attribute of.
"""
import struct
from numbers import Integral
from typing import Any, Iterable, Sequence

import numpy as np
from xdsl.dialects.builtin import BytesAttr, DenseArrayBase, FloatAttr, FloatData, f64, i64


def integers(values: Iterable[Any]) -> list[int]:
    """Values as ints; TypeError for a bool and what is no integer."""
    if isinstance(values, np.ndarray) and values.dtype.kind in 'iu':
        values = values.tolist()
    values = list(values)
    if set(map(type, values)) <= {int}:
        return values
    return [integer(value) for value in values]


def integer(value: Any) -> int:
    """A value as an int; TypeError for a bool and what is no integer."""
    if isinstance(value, Integral) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    raise TypeError(type(value))


def integer_array(values: Sequence[int]) -> DenseArrayBase:
    """``array<i64: ...>``: ``DenseArrayBase.from_list(i64, values)``."""
    try:
        data = struct.pack(f'<{len(values)}q', *values)
    except struct.error:  # i64 has no sign: up to 2**64 - 1 xDSL has a form for it
        return DenseArrayBase.from_list(i64, values)
    return DenseArrayBase(i64, BytesAttr(data))


def float_attribute(value: float) -> FloatAttr:
    """``FloatAttr(value, f64)``: a Python float is what a float64 attribute holds."""
    attribute, data = FloatAttr.__new__(FloatAttr), FloatData.__new__(FloatData)
    object.__setattr__(data, 'data', value)  # frozen dataclasses, without their checks
    object.__setattr__(attribute, 'value', data)
    object.__setattr__(attribute, 'type', f64)
    return attribute
