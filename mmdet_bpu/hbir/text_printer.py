"""xDSL's printer with dense data written from its bytes, lists of numbers written at once, and
locations where they are known."""
import math
from typing import Callable, Optional, TextIO

import numpy as np
from xdsl.dialects.builtin import (ArrayAttr, DenseArrayBase, DenseIntOrFPElementsAttr, FloatAttr,
                                   IntegerAttr, ModuleOp, TensorType, UnknownLoc, f32, f64, i64)
from xdsl.ir import Attribute, Operation
from xdsl.printer import Printer

from mmdet_bpu.hbir.types import NUMPY_DTYPES, dense_array, element_name, float_text

LIST_ELEMENTS = 100
"""Longest constant that is written out element by element (the limit of mlir-opt)."""

HEX_BYTES = 1 << 16
"""Bytes that are written as digits at a time: their text stays in the cache."""


class Pieces:
    """A text stream that hands every piece on (StringIO would store four bytes a letter)."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write


class ModulePrinter(Printer):
    """Prints a module to a stream; see the module docstring."""

    def __init__(self, stream: TextIO | Pieces):
        super().__init__(stream=stream)
        # By identity, with the type itself so that it stays: to hash one takes as long as to print
        # it, and a value's type is printed where the value is made and wherever it is read.
        self._types: dict[int, tuple[TensorType, str]] = {}

    def print_module(self, module: ModuleOp) -> None:
        """Print a module and a newline."""
        self.print_op(module)
        self.print_string('\n')

    def print_string(self, text: str, *, indent: int | None = None) -> None:
        """Print a text; see xDSL's."""
        if '\n' in text:
            super().print_string(text, indent=indent)
        else:
            self._write(text)

    def print_attribute(self, attribute: Attribute) -> None:
        """Print an attribute or type."""
        if isinstance(attribute, DenseIntOrFPElementsAttr):
            self._print_dense(attribute)
        elif isinstance(attribute, TensorType):
            self._write(self._type_text(attribute))
        elif isinstance(attribute, DenseArrayBase) and attribute.elt_type == i64 and len(attribute):
            self._write(f'array<i64: {", ".join(map(str, attribute.get_values()))}>')
        elif isinstance(attribute, ArrayAttr):
            numbers = list(map(_number_text, attribute.data))
            if None not in numbers:
                self._write(f'[{", ".join(numbers)}]')
                return
            with self.in_square_brackets():
                self.print_list(attribute.data, self._print_item)
        else:
            super().print_attribute(attribute)

    def _print_item(self, item: Attribute) -> None:
        """Print an item of a list; i64 and f64 go without their type, as MLIR reads them."""
        number = _number_text(item)
        if isinstance(item, FloatAttr) and item.type == f32 and math.isfinite(item.value.data):
            # The shortest decimal that reads back as the same float32.
            self.print_string(f'{float_text(float(str(np.float32(item.value.data))))} : f32')
        elif number is None:
            self.print_attribute(item)
        else:
            self.print_string(number)

    def _type_text(self, type_: TensorType) -> str:
        known = self._types.get(id(type_))
        if known is None:
            pieces: list[str] = []
            Printer.print_attribute(ModulePrinter(Pieces(pieces.append)), type_)
            known = self._types[id(type_)] = (type_, ''.join(pieces))
        return known[1]

    def print_operation_type(self, op: Operation) -> None:
        """Print the function type of an operation, and its location if it has one."""
        super().print_operation_type(op)
        if not isinstance(op.location, UnknownLoc):
            self.print_string(' ')
            self.print_attribute(op.location)

    def _print_dense(self, attribute: DenseIntOrFPElementsAttr) -> None:
        data, name = attribute.data.data, element_name(attribute.type.element_type)
        if name not in NUMPY_DTYPES:
            super().print_attribute(attribute)
            return
        self.print_string('dense<')
        array, size = dense_array(attribute), NUMPY_DTYPES[name].itemsize
        splat = b'' != data[:size] == data[-size:] and data == data[:size] * array.size
        sample = array.reshape(-1)[:1] if splat else array
        # A number in hexadecimal digits outside of quotes would be read as an integer.
        if sample.size <= LIST_ELEMENTS and (name[0] != 'f' or np.isfinite(sample).all()):
            self.print_string(_literal(sample.item() if splat else sample.tolist()))
        else:
            if name == 'i1':
                data = np.packbits(array, bitorder='little').tobytes()
            self.print_string('"0x')
            self._write_digits(data[:size] if splat else data)
            self.print_string('"')
        self.print_string('> : ')
        self.print_attribute(attribute.type)

    def _write_digits(self, data: bytes) -> None:
        view = memoryview(data)
        for begin in range(0, len(data), HEX_BYTES):
            self._write(view[begin:begin + HEX_BYTES].hex().upper())

    def _write(self, text: str) -> None:
        """Write text without line breaks, past xDSL's search for them."""
        self.stream.write(text)
        self._current_column += len(text)


def _number_text(item: Attribute) -> Optional[str]:
    """Text of an i64 or a finite f64."""
    if isinstance(item, IntegerAttr) and item.type == i64:
        return str(item.value.data)
    if isinstance(item, FloatAttr) and item.type == f64 and math.isfinite(item.value.data):
        return float_text(item.value.data)
    return None


def _literal(value: bool | int | float | list) -> str:
    if isinstance(value, list):
        return f'[{", ".join(map(_literal, value))}]' if value else ''
    if isinstance(value, bool):
        return str(value).lower()
    return float_text(value) if isinstance(value, float) else str(value)
