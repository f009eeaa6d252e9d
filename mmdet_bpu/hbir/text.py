"""Text form of a module: print, parse, verify, files; made for modules with 45 M weights.

Constants of more than 100 elements are hexadecimal dense attributes, ``dense<"0x...">``, in MLIR's
layout (little-endian elements; ``i1`` packed to bits, lowest first). Their bytes go straight from
the attribute to the text and back, never through Python lists. ``parse_text(print_text(m))``
prints the same text again, and equal modules print equal text.

Where an ``hbir`` operation comes from in the model is its location, ``loc("layer1.0/conv")``.
"""
import math
import re
from pathlib import Path
from typing import Callable, TextIO

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (ArrayAttr, Builtin, BytesAttr, DenseIntOrFPElementsAttr,
                                   FloatAttr, IntegerAttr, ModuleOp, UnknownLoc, f64, i64)
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Operation
from xdsl.parser import Parser, ParserState
from xdsl.printer import Printer
from xdsl.utils.exceptions import ParseError, VerifyException
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.attributes import Hbdk
from mmdet_bpu.hbir.bpu_dialect import Bpu
from mmdet_bpu.hbir.hbir_dialect import Hbir
from mmdet_bpu.hbir.qnt_dialect import Qnt
from mmdet_bpu.hbir.types import NUMPY_DTYPES, dense_array, element_name, float_text

LIST_ELEMENTS = 100
"""Longest constant that is written out element by element (the limit of mlir-opt)."""


def print_text(module: ModuleOp) -> str:
    """Text of a module, with a newline at its end."""
    pieces: list[str] = []
    _ModulePrinter(_Pieces(pieces.append)).print_module(module)
    return ''.join(pieces)


def write_text(module: ModuleOp, path: str | Path) -> None:
    """Write the text of a module to a file, without holding it in memory."""
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        _ModulePrinter(file).print_module(module)


def parse_text(text: str, name: str = '<text>', verify: bool = True) -> ModuleOp:
    """Parse the text of a module (``module {...}`` or a bare function).

    Args:
        text: MLIR text in the dialects builtin, func, hbir, qnt and bpu.
        name: What error messages call the text, such as its path.
        verify: Verify the module.

    Raises:
        BpuError: The text does not parse, or the module is invalid; the message starts with
            ``name:line``.
    """
    parser = _ModuleParser(_context(), text, name)
    try:
        module = parser.parse_module()
    except ParseError as error:
        location = error.span.get_location()
        raise BpuError(f'{location.file}:{location.line}:{location.col}: '
                       f'{_first_line(error.msg)}') from None
    except VerifyException as error:
        # Types and attributes verify themselves as they are made.
        raise BpuError(f'{name}:{parser.line()}: {_first_line(error)}') from None
    if verify:
        verify_module(module, lambda op: f'{name}:{parser.line_of(op)}')
    return module


def read_text(path: str | Path, verify: bool = True) -> ModuleOp:
    """Parse a file; see :func:`parse_text`. A missing file raises BpuError too."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise BpuError(f'cannot read HBIR text from {path}: {error}') from None
    return parse_text(text, str(path), verify)


def verify_module(module: ModuleOp, place: Callable[[Operation], str] | None = None) -> None:
    """Verify every operation of a module.

    Args:
        module: The module.
        place: Where an operation is, for the message; by default its name and site.

    Raises:
        BpuError: With the place, the operation and the reason.
    """
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException as error:
            where = place(op) if place else f'at {site_of(op)!r}'
            raise BpuError(f'{where}: {op.name}: {_first_line(error)}') from None


def site_of(op: Operation) -> str:
    """Where in the model an operation comes from: its ``site``, or its named location, or ''."""
    site = op.properties.get('site') or getattr(op.location, 'desc', None)
    return site.data if site is not None else ''


def _first_line(error: Exception | str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(' ^\t')]
    return ' '.join(lines[:3])


def _context() -> Context:
    context = Context()
    for dialect in (Builtin, Func, Hbir, Qnt, Hbdk, Bpu):
        context.load_dialect(dialect)
    return context


class _Pieces:
    """A text stream that hands every piece on (StringIO would store four bytes a letter)."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write


class _ModulePrinter(Printer):
    """xDSL's printer with dense data written from its bytes and locations where they are known."""

    def __init__(self, stream: TextIO | _Pieces):
        super().__init__(stream=stream)

    def print_module(self, module: ModuleOp) -> None:
        self.print_op(module)
        self.print_string('\n')

    def print_attribute(self, attribute: Attribute) -> None:
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
        elif isinstance(item, FloatAttr) and item.type == f64 and math.isfinite(item.value.data):
            self.print_string(float_text(item.value.data))
        else:
            self.print_attribute(item)

    def print_operation_type(self, op: Operation) -> None:
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


class _Lexer(MLIRLexer):
    """xDSL's lexer with a string pattern that fails in linear time on an unclosed string.

    The original's nested repetition backtracks without end, on a truncated file for instance.
    """

    _unescaped_characters_regex = re.compile(
        r'"[^"\\\n\v\f]*(?:\\(?:["nt\\]|[0-9A-Fa-f]{2})[^"\\\n\v\f]*)*"')


class _ModuleParser(Parser):
    """xDSL's parser with dense data read as bytes, and the place of each operation kept."""

    def __init__(self, context: Context, text: str, name: str):
        super().__init__(context, '', name)
        self._parser_state = ParserState(_Lexer(Input(text, name)))
        self._starts: dict[Operation, int] = {}

    def line(self, position: int | None = None) -> int:
        """Line (from 1) of a position, by default of the current token."""
        position = self.pos if position is None else position
        return self.lexer.input.content.count('\n', 0, position) + 1

    def line_of(self, op: Operation) -> int:
        """Line (from 1) on which an operation starts."""
        return self.line(self._starts.get(op, 0))

    def parse_operation(self) -> Operation:
        start = self._current_token.span.start
        op = super().parse_operation()
        self._starts[op] = start
        return op

    def parse_dense_int_or_fp_elements_attr(self, type=None) -> DenseIntOrFPElementsAttr:
        """Parse ``<"0x...">``, ``<value>`` and ``<[...]>`` with the type behind (or given)."""
        self.parse_punctuation('<', ' in dense attribute')
        text = literal = None
        if self.parse_optional_punctuation('>') is None:
            text = self.parse_optional_str_literal()
            literal = self._parse_tensor_literal() if text is None else None
            self.parse_punctuation('>', ' in dense attribute')
        if type is None:
            self.parse_punctuation(':', ' in dense attribute')
            type = self._parse_dense_literal_type()
        count = math.prod(type.get_shape())
        if text is not None:
            data = self._hexadecimal(text, type, count)
        elif literal is not None:
            data = self._listed(*literal, type, count)
        else:
            data = b''
        size = type.element_type.compile_time_size
        if len(data) != count * size:
            self.raise_error(f'expected {count} elements for {type}, found {len(data) // size}')
        return DenseIntOrFPElementsAttr(type, BytesAttr(data))

    def _hexadecimal(self, text: str, type, count: int) -> bytes:
        try:
            data = bytes.fromhex(text[2:]) if text.startswith('0x') else None
        except ValueError:
            data = None
        if data is None:
            self.raise_error('expected "0x" and hexadecimal digits in a dense attribute')
        if element_name(type.element_type) == 'i1':
            if len(data) != -(-count // 8):
                self.raise_error(f'expected {count} bits for {type}, found {len(data)} bytes')
            bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder='little')
            return bits.tobytes()
        return data * count if len(data) == type.element_type.compile_time_size else data

    def _listed(self, values: list, shape: list[int], type, count: int) -> bytes:
        if shape and list(type.get_shape()) != shape:
            self.raise_error(f'expected elements of shape {list(type.get_shape())}, found {shape}')
        element = type.element_type
        data = element.pack([value.to_type(self, element) for value in values])
        if element_name(element) == 'i1':
            data = (np.frombuffer(data, np.uint8) != 0).tobytes()
        return data if shape else data * count
