"""Attribute kinds of the op tables: check them, make them of Python values and read them back.

The kinds are those of :mod:`mmdet_bpu.hbir.dialect`.
"""
import math
from numbers import Integral, Real
from typing import Any, Sequence

import numpy as np
from xdsl.dialects.builtin import (ArrayAttr, DenseArrayBase, DenseIntOrFPElementsAttr, FloatAttr,
                                   IntegerAttr, IntegerType, StringAttr, f32, f64, i1, i64)
from xdsl.ir import (Attribute, Dialect, ParametrizedAttribute, SpacedOpaqueSyntaxAttribute,
                     TypeAttribute)
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.number_attributes import (float_attribute, integer, integer_array,
                                              integers)
from mmdet_bpu.hbir.types import dense_array, dense_attribute


class HbdkKeyword(ParametrizedAttribute, SpacedOpaqueSyntaxAttribute):
    """A named choice, written ``#hbdk<InterpolationMode bilinear>``."""

    keyword: StringAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse the keyword."""
        return [StringAttr(parser.parse_identifier())]

    def print_parameters(self, printer: Printer) -> None:
        """Print the keyword."""
        printer.print_string(self.keyword.data)


KEYWORDS: dict[str, type[HbdkKeyword]] = {
    name: irdl_attr_definition(type(name, (HbdkKeyword,), {
        'name': f'hbdk.{name}', '__doc__': f'``#hbdk<{name} keyword>``.', '__module__': __name__}))
    for name in ('InterpolationMode', 'ExpansionMode', 'GeluApproximateMode', 'BoxTypeMode',
                 'ScatterReduceMode', 'ImageConvertMode', 'CSCMode')}
"""The vendor's keyword attributes. Their sets of keywords are not published as a list, so any
identifier is accepted (seen: bilinear, nearest, bicubic; constant, border); the operations of
:mod:`mmdet_bpu.hbir.camera_ops` check their own."""

Hbdk = Dialect('hbdk', [], list(KEYWORDS.values()))


def _is_i64(attribute: Attribute) -> bool:
    return isinstance(attribute, IntegerAttr) and attribute.type == i64


def _is_f64(attribute: Attribute) -> bool:
    return isinstance(attribute, FloatAttr) and attribute.type == f64


def _is_f32(attribute: Attribute) -> bool:
    return isinstance(attribute, FloatAttr) and attribute.type == f32 \
        and math.isfinite(attribute.value.data)


_SCALAR_CHECKS = {
    'i64': _is_i64,
    'f64': _is_f64,
    'f32': _is_f32,
    'number': lambda attribute: _is_i64(attribute) or _is_f64(attribute),
    'bool': lambda attribute: isinstance(attribute, IntegerAttr) and attribute.type == i1,
    'str': lambda attribute: isinstance(attribute, StringAttr),
    'type': lambda attribute: isinstance(attribute, TypeAttribute),
    'elements': lambda attribute: isinstance(attribute, DenseIntOrFPElementsAttr),
}


def check_kind(kind: str, attribute: Attribute) -> None:
    """Raise VerifyException unless ``attribute`` is of ``kind``."""
    base, _, length = kind.rstrip(']').partition('[')
    if kind.startswith('#'):
        valid = isinstance(attribute, KEYWORDS[kind[1:]])
    elif base == 'ints':
        valid = isinstance(attribute, DenseArrayBase) and attribute.elt_type == i64
        count = len(attribute) if valid else 0
    elif base in ('i64s', 'f64s', 'f32s'):
        check = _SCALAR_CHECKS[base[:-1]]
        valid = isinstance(attribute, ArrayAttr) and all(map(check, attribute.data))
        count = len(attribute.data) if valid else 0
    else:
        valid = _SCALAR_CHECKS[kind](attribute)
    if not valid or (length and count != int(length)):
        raise VerifyException(f'expected {_describe(base, length)}, found {_shorten(attribute)}')


def make_attribute(kind: str, value: Any, signless: bool = False) -> Attribute:
    """Attribute of ``kind`` from a plain Python value (an Attribute is passed through).

    Args:
        kind: Kind of the table, such as 'i64s[2]' or '#InterpolationMode'.
        value: int, bool, float, str, list, tuple or numpy array.
        signless: For 'elements': integers are stored as ``i8`` rather than ``si8``.

    Raises:
        BpuError: The value cannot be of the kind.
    """
    if isinstance(value, Attribute):
        return value
    base, _, length = kind.rstrip(']').partition('[')
    try:
        if base == 'ints':
            return integer_array(integers(value))
        if base == 'f64s' and isinstance(value, np.ndarray) and (value.ndim, value.dtype) == (
                1, np.float64):
            return ArrayAttr(map(float_attribute, value.tolist()))
        if base in ('i64s', 'f64s', 'f32s'):
            return ArrayAttr(_scalar(base[:-1], item) for item in value)
        if base == 'elements':
            return dense_attribute(np.asarray(value), signless)
        return _scalar(kind, value)
    except TypeError:
        raise BpuError(f'expected {_describe(base, length)}, found {value!r}') from None


def plain_value(attribute: Attribute) -> Any:
    """Python value of an attribute: int, bool, float, str, list; dense data as a numpy array.

    Keywords become their string, types stay attributes.
    """
    if isinstance(attribute, IntegerAttr):
        value = attribute.value.data
        return bool(value) if attribute.type == i1 else value
    if isinstance(attribute, FloatAttr):
        return attribute.value.data
    if isinstance(attribute, StringAttr):
        return attribute.data
    if isinstance(attribute, HbdkKeyword):
        return attribute.keyword.data
    if isinstance(attribute, DenseArrayBase):
        return list(attribute.get_values())
    if isinstance(attribute, ArrayAttr):
        return [plain_value(item) for item in attribute.data]
    if isinstance(attribute, DenseIntOrFPElementsAttr):
        return dense_array(attribute)
    return attribute


def _scalar(kind: str, value: Any) -> Attribute:
    if kind.startswith('#') and isinstance(value, str):
        return KEYWORDS[kind[1:]](StringAttr(value))
    if kind == 'bool' and isinstance(value, (bool, np.bool_)):
        return IntegerAttr(int(value), IntegerType(1))
    if kind == 'str' and isinstance(value, str):
        return StringAttr(value)
    if kind == 'i64' or (kind == 'number' and isinstance(value, Integral)):
        return IntegerAttr(integer(value), i64)
    if kind in ('f64', 'number') and isinstance(value, Real) and not isinstance(value, bool):
        return float_attribute(float(value))
    if kind == 'f32' and isinstance(value, Real) and not isinstance(value, bool):
        return FloatAttr(float(np.float32(value)), f32)
    raise TypeError(kind)


def _describe(kind: str, length: str) -> str:
    words = {'i64s': 'a list of i64', 'f64s': 'a list of f64', 'f32s': 'a list of finite f32',
             'ints': 'array<i64: ...>',
             'number': 'an i64 or f64 number', 'elements': 'dense elements', 'str': 'a string',
             'bool': 'true or false', 'type': 'a type'}
    if kind.startswith('#'):
        return f'#hbdk<{kind[1:]} ...>'
    return words.get(kind, kind) + (f' with {length} elements' if length else '')


def _shorten(attribute: Attribute) -> str:
    if isinstance(attribute, DenseIntOrFPElementsAttr):
        return f'dense elements of {attribute.type}'
    text = str(attribute)
    return text if len(text) <= 80 else text[:77] + '...'
