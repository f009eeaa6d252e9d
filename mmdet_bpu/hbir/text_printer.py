"""xDSL's printer with dense data written from its bytes, and locations where they are known."""
from typing import Callable, TextIO

import numpy as np
from xdsl.dialects.builtin import (ArrayAttr, DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr,
                                   ModuleOp, UnknownLoc, f64, i64)
from xdsl.ir import Attribute, Operation
from xdsl.printer import Printer

from mmdet_bpu.hbir.types import NUMPY_DTYPES, dense_array, element_name, float_text

LIST_ELEMENTS = 100
"""Longest constant that is written out element by element (the limit of mlir-opt)."""


class Pieces:
    """A text stream that hands every piece on (StringIO would store four bytes a letter)."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write


class ModulePrinter(Printer):
    """Prints a module to a stream; see the module docstring."""

    def __init__(self, stream: TextIO | Pieces):
        super().__init__(stream=stream)

    def print_module(self, module: ModuleOp) -> None:
        """Print a module and a newline."""
        self.print_op(module)
        self.print_string('\n')

    def print_attribute(self, attribute: Attribute) -> None:
        """Print an attribute or type."""
        if isinstance(attribute, DenseIntOrFPElementsAttr):
            self._print_dense(attribute)
        elif isinstance(attribute, ArrayAttr):
            with self.in_square_brackets():
                self.print_list(attribute.data, self._print_item)
        else:
            super().print_attribute(attribute)

    def _print_item(self, item: Attribute) -> None:
        """Print an item of a list; i64 and f64 go without their type, as MLIR reads them."""
        if isinstance(item, IntegerAttr) and item.type == i64:
            self.print_string(str(item.value.data))
        elif isinstance(item, FloatAttr) and item.type == f64 and np.isfinite(item.value.data):
            self.print_string(float_text(item.value.data))
        else:
            self.print_attribute(item)

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
        splat = array.size > 0 and data == data[:size] * array.size
        sample = array.reshape(-1)[:1] if splat else array
        # A number in hexadecimal digits outside of quotes would be read as an integer.
        if sample.size <= LIST_ELEMENTS and (name[0] != 'f' or np.isfinite(sample).all()):
            self.print_string(_literal(sample.item() if splat else sample.tolist()))
        else:
            if name == 'i1':
                data = np.packbits(array, bitorder='little').tobytes()
            self.print_string('"0x')
            self._write((data[:size] if splat else data).hex().upper())
            self.print_string('"')
        self.print_string('> : ')
        self.print_attribute(attribute.type)

    def _write(self, text: str) -> None:
        """Write text without line breaks, past xDSL's search for them."""
        self.stream.write(text)
        self._current_column += len(text)


def _literal(value: bool | int | float | list) -> str:
    if isinstance(value, list):
        return f'[{", ".join(map(_literal, value))}]' if value else ''
    if isinstance(value, bool):
        return str(value).lower()
    return float_text(value) if isinstance(value, float) else str(value)
