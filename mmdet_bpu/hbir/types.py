"""Element types, tensor types and constant data shared by the three dialects.

A quantized element is written as the vendor's published text writes it,
``!qnt.uniform<si8:f32, 0.1>``; with one scale per slice along an axis it takes the form of
MLIR's own quantized type, ``!qnt.uniform<si8:f32:0, {0.1, 0.2}>``. A scale is a float32 that is
kept and printed as the float64 of equal value, so that text gives back the same bits.
"""
import math
import re
from typing import NamedTuple, Sequence

import numpy as np
from xdsl.dialects.builtin import (ArrayAttr, BFloat16Type, BytesAttr, DenseIntOrFPElementsAttr,
                                   Float16Type, Float32Type, Float64Type, FloatData, IntAttr,
                                   IntegerType, NoneType, Signedness, TensorType)
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.text_scan import NUMBERS, scan

_SCALES = re.compile(rf'\{{\s*({NUMBERS})\s*\}}', re.ASCII)

PER_TENSOR = -1
"""Value of ``UniformQuantizedType.axis`` when one scale holds for the whole tensor."""

_SIGN = {Signedness.SIGNED: 'si', Signedness.UNSIGNED: 'ui', Signedness.SIGNLESS: 'i'}

_ELEMENTS: dict[str, Attribute] = {
    'f64': Float64Type(), 'f32': Float32Type(), 'f16': Float16Type(), 'bf16': BFloat16Type(),
    'i1': IntegerType(1)}
for _bits in (8, 16, 32, 64):
    for _signedness, _prefix in _SIGN.items():
        _ELEMENTS[f'{_prefix}{_bits}'] = IntegerType(_bits, _signedness)

NUMPY_DTYPES: dict[str, np.dtype] = {
    'f64': np.dtype('<f8'), 'f32': np.dtype('<f4'), 'f16': np.dtype('<f2'), 'i1': np.dtype(bool)}
for _bits in (8, 16, 32, 64):
    NUMPY_DTYPES[f'ui{_bits}'] = np.dtype(f'<u{_bits // 8}')
    NUMPY_DTYPES[f'si{_bits}'] = NUMPY_DTYPES[f'i{_bits}'] = np.dtype(f'<i{_bits // 8}')
"""Element name -> little-endian numpy type of its stored data (bfloat16 has none)."""

_FROM_NUMPY = {'f8': 'f64', 'f4': 'f32', 'f2': 'f16', 'b1': 'i1'}


class ValueType(NamedTuple):
    """Shape, element name ('si8', 'f32', ...) and scale (None, float, or one per channel)."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | np.ndarray | None


@irdl_attr_definition
class UniformQuantizedType(ParametrizedAttribute, TypeAttribute):
    """Symmetric uniform quantization: real value = scale x stored integer, zero point 0."""

    name = 'qnt.uniform'
    storage: IntegerType
    expressed: Float32Type
    scales: ArrayAttr[FloatData]
    axis: IntAttr

    @classmethod
    def create(cls, dtype: str, scale: float | Sequence[float],
               axis: int | None = None) -> 'UniformQuantizedType':
        """Quantized element of storage ``dtype`` ('si8', 'si16', 'si32')."""
        values = np.atleast_1d(np.asarray(scale, np.float32)).astype(np.float64).tolist()
        return cls(_ELEMENTS[dtype], Float32Type(), ArrayAttr(map(FloatData, values)),
                   IntAttr(PER_TENSOR if axis is None else axis))

    @property
    def scale(self) -> float | np.ndarray:
        """The scale: a float, or a float64 array (channels,) where there is an axis."""
        values = [item.data for item in self.scales.data]
        return values[0] if self.axis.data == PER_TENSOR else np.array(values)

    def verify(self) -> None:
        """Check that storage is signed and every scale positive and finite."""
        if element_name(self.storage) not in ('si8', 'si16', 'si32'):
            raise VerifyException(f'storage of a quantized type is si8, si16 or si32, '
                                  f'found {self.storage}')
        if self.axis.data == PER_TENSOR and len(self.scales.data) != 1:
            raise VerifyException(f'a quantized type without an axis has one scale, '
                                  f'found {len(self.scales.data)}')
        for item in self.scales.data:
            if not (math.isfinite(item.data) and item.data > 0):
                raise VerifyException(f'a scale is positive and finite, found {item.data}')

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse ``<storage:expressed[:axis], scale | {scales}>``."""
        with parser.in_angle_brackets():
            storage = parser.parse_type()
            parser.parse_punctuation(':')
            expressed = parser.parse_type()
            axis = PER_TENSOR
            if parser.parse_optional_punctuation(':') is not None:
                axis = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_punctuation(',')
            if axis == PER_TENSOR:
                scales = [parser.parse_number()]
            elif (numbers := scan(parser, _SCALES)) is not None:
                scales = numbers[1].split(',')
            else:
                scales = parser.parse_comma_separated_list(parser.Delimiter.BRACES,
                                                           parser.parse_number)
        return [storage, expressed, ArrayAttr(FloatData(float(value)) for value in scales),
                IntAttr(axis)]

    def print_parameters(self, printer: Printer) -> None:
        """Print the form that :meth:`parse_parameters` reads."""
        scales = ', '.join(float_text(item.data) for item in self.scales.data)
        with printer.in_angle_brackets():
            printer.print_attribute(self.storage)
            printer.print_string(':')
            printer.print_attribute(self.expressed)
            if self.axis.data != PER_TENSOR:
                printer.print_string(f':{self.axis.data}')
                scales = f'{{{scales}}}'
            printer.print_string(f', {scales}')


def float_text(value: float) -> str:
    """Shortest decimal that reads back as ``value``, with the dot that MLIR's lexer wants."""
    text = repr(float(value))
    if 'e' in text and '.' not in text:
        text = text.replace('e', '.0e')
    return text


def element_name(element: Attribute) -> str | None:
    """'f32', 'si8', 'i1', ... of an element type, its storage if quantized; None if foreign."""
    if isinstance(element, UniformQuantizedType):
        element = element.storage
    if isinstance(element, IntegerType):
        return f'{_SIGN[element.signedness.data]}{element.width.data}'
    return getattr(element, 'name', None)


def element_type(dtype: str) -> Attribute:
    """Element type called ``dtype``; raises BpuError for a name that no dialect here has."""
    if dtype not in _ELEMENTS:
        raise BpuError(f'unknown element type {dtype!r}: expected one of {sorted(_ELEMENTS)}')
    return _ELEMENTS[dtype]


def tensor_type(shape: Sequence[int], dtype: str, scale: float | Sequence[float] | None = None,
                axis: int | None = None) -> TensorType:
    """Tensor type of a static ``shape``.

    Args:
        shape: Dimensions, each >= 0.
        dtype: Element name, such as 'f32', 'si8', 'si32', 'i1'.
        scale: Makes the element quantized: one scale, or one per slice along ``axis``.
        axis: Axis of the scales; None for one scale.
    """
    if scale is None:
        return TensorType(element_type(dtype), list(map(int, shape)))
    return TensorType(UniformQuantizedType.create(dtype, scale, axis), list(map(int, shape)))


def value_type(value: SSAValue | Attribute) -> ValueType:
    """Shape, element name and scale of a tensor value (or of a tensor type)."""
    tensor = value.type if isinstance(value, SSAValue) else value
    if not isinstance(tensor, TensorType):
        raise BpuError(f'expected a ranked tensor, found a value of type {tensor}')
    element = tensor.element_type
    scale = element.scale if isinstance(element, UniformQuantizedType) else None
    return ValueType(tuple(tensor.get_shape()), element_name(element), scale)


def array_element(dtype: np.dtype) -> str:
    """Element name of a numpy type: 'f32', 'si8', 'i1', ...; BpuError if it has none."""
    code = dtype.str[1:]
    name = _FROM_NUMPY.get(code) or f'{"u" if code[0] == "u" else "s"}i{8 * int(code[1:] or 0)}'
    if code[0] not in 'iufb' or name not in NUMPY_DTYPES:
        raise BpuError(f'no element type for numpy type {dtype}')
    return name


def dense_attribute(array: np.ndarray, signless: bool = False) -> DenseIntOrFPElementsAttr:
    """Constant data as a dense attribute; the bytes are stored as they are, no Python lists.

    Args:
        array: Data of any shape; bool, signed or unsigned integers, or floats.
        signless: Integers become ``i8`` instead of ``si8`` (the form of ``bpu.constant``).
    """
    array = np.asarray(array)
    name = array_element(array.dtype)
    if signless and name != 'i1':
        name = name.lstrip('su')
    data = np.ascontiguousarray(array, NUMPY_DTYPES[name]).tobytes()
    return DenseIntOrFPElementsAttr(TensorType(element_type(name), list(array.shape)),
                                    BytesAttr(data))


def dense_array(attribute: DenseIntOrFPElementsAttr) -> np.ndarray:
    """Read-only array over the bytes of a dense attribute, in its shape."""
    name = element_name(attribute.type.element_type)
    if name not in NUMPY_DTYPES:
        raise BpuError(f'constant data of type {attribute.type} has no numpy form')
    return np.frombuffer(attribute.data.data, NUMPY_DTYPES[name]).reshape(attribute.get_shape())


def is_none(attribute: Attribute) -> bool:
    """Whether a type is MLIR's ``none``, which stands for an operand that is not given."""
    return isinstance(attribute, NoneType)
