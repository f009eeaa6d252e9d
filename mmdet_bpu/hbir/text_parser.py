"""xDSL's parser with dense data read as bytes, long lists read at once, and the place of each
operation kept."""
import math
import re

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (ArrayAttr, BytesAttr, DenseArrayBase, DenseIntOrFPElementsAttr,
                                   IntegerAttr, TensorType, i64)
from xdsl.ir import Operation, TypeAttribute
from xdsl.parser import Parser, ParserState
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer

from mmdet_bpu.hbir.number_attributes import float_attribute, integer_array
from mmdet_bpu.hbir.text_limits import SPLAT_BUDGET, shape_fault
from mmdet_bpu.hbir.text_scan import NUMBERS, scan
from mmdet_bpu.hbir.types import NUMPY_DTYPES, UniformQuantizedType, element_name

_LIST = re.compile(rf'\[\s*({NUMBERS})\s*\]', re.ASCII)
_INTEGERS = re.compile(r'<\s*i64\s*:\s*(-?\d+(?:\s*,\s*-?\d+)*)\s*>', re.ASCII)
"""``[1, 2.5]`` and ``<i64: 1, 2>``."""
_TENSOR = re.compile(r'tensor<[^<>"/]*(?:<[^<>"/]*>)?>')
"""A tensor type with at most one quantized element type in it."""


class _Lexer(MLIRLexer):
    """xDSL's lexer with a string pattern that fails in linear time on an unclosed string.

    The original's nested repetition backtracks without end, on a truncated file for instance.
    """

    _unescaped_characters_regex = re.compile(
        r'"[^"\\\n\v\f]*(?:\\(?:["nt\\]|[0-9A-Fa-f]{2})[^"\\\n\v\f]*)*"')


class ModuleParser(Parser):
    """Parses one module; see the module docstring."""

    def __init__(self, context: Context, text: str, name: str):
        super().__init__(context, '', name)
        self._parser_state = ParserState(_Lexer(Input(text, name)))
        self._starts: dict[Operation, int] = {}
        self._splats = 0
        self._types: dict[str, TypeAttribute] = {}

    def line(self, position: int | None = None) -> int:
        """Line (from 1) of a position, by default of the current token."""
        position = self.pos if position is None else position
        return self.lexer.input.content.count('\n', 0, position) + 1

    def line_of(self, op: Operation) -> int:
        """Line (from 1) on which an operation starts."""
        return self.line(self._starts.get(op, 0))

    def parse_operation(self) -> Operation:
        """Parse an operation and remember where it starts."""
        start = self._current_token.span.start
        op = super().parse_operation()
        self._starts[op] = start
        return op

    def parse_optional_type(self) -> TypeAttribute | None:
        """Parse a type; a text that was read before is the type that it was then."""
        match = _TENSOR.match(self.lexer.input.content, self.pos)
        if match is not None and match[0] in self._types:
            self._resume_from(match.end())
            return self._types[match[0]]
        found = super().parse_optional_type()
        if match is not None:
            between = self.lexer.input.content[match.end():self.pos]
            if self.pos >= match.end() and not between.strip():
                self._types[match[0]] = found
        return found

    def _parse_builtin_densearray_attr(self) -> DenseArrayBase | None:
        match = scan(self, _INTEGERS)
        if match is None:
            return super()._parse_builtin_densearray_attr()
        return integer_array(list(map(int, match[1].split(','))))

    def _parse_optional_array_attr(self) -> ArrayAttr | None:
        match = scan(self, _LIST)
        if match is None:
            return super()._parse_optional_array_attr()
        return ArrayAttr(float_attribute(float(item)) if '.' in item else
                         IntegerAttr(int(item), i64) for item in match[1].split(','))

    def _parse_optional_complex(self) -> None:
        """No type here is complex, and xDSL fails at what is nearly a complex number."""
        return None

    def parse_dense_int_or_fp_elements_attr(self, type=None) -> DenseIntOrFPElementsAttr:
        """Parse ``<"0x...">``, ``<value>`` and ``<[...]>`` with the type behind (or given)."""
        text, literal = self._scan_digits(), None
        if text is None:
            self.parse_punctuation('<', ' in dense attribute')
            if self.parse_optional_punctuation('>') is None:
                text = self.parse_optional_str_literal()
                literal = self._parse_tensor_literal() if text is None else None
                self.parse_punctuation('>', ' in dense attribute')
        if type is None:
            self.parse_punctuation(':', ' in dense attribute')
            type = self._parse_dense_literal_type()
        count = self._bounded_count(type, text is None and literal is not None and literal[1])
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

    def _scan_digits(self) -> str | None:
        """The string of ``<"0x...">``, gone past: no lexer looks at its letters."""
        content, begin = self.lexer.input.content, self.pos + 1
        if not content.startswith('"0x', begin):
            return None
        end = content.find('">', begin)
        # What is no plain string is for the lexer to judge.
        if end < 0 or any(content.find(mark, begin + 1, end) >= 0 for mark in ('"', '\\', '\n')):
            return None
        self._resume_from(end + 2)
        return content[begin + 1:end]

    def _parse_dense_literal_type(self):
        start = self.pos
        found = self.parse_optional_type()
        if isinstance(found, TensorType) and not isinstance(
                found.element_type, UniformQuantizedType) and min(
                    found.get_shape(), default=0) >= 0 and element_name(
                        found.element_type) in NUMPY_DTYPES:
            return found
        self._resume_from(start)  # xDSL's own check takes 1 ms
        return super()._parse_dense_literal_type()

    def _bounded_count(self, type, listed) -> int:
        """Elements of a constant whose memory is bounded by the text, or by the budget."""
        fault = shape_fault(tuple(type.get_shape()))
        if fault is not None:
            self.raise_error(fault)
        count = math.prod(type.get_shape())
        if not listed and count > 1:
            # Elements that the text does not list: a splat, unless the hexadecimal is that long.
            nbytes = count * type.element_type.compile_time_size
            if nbytes > len(self.lexer.input.content):
                self._splats += nbytes
        if self._splats > SPLAT_BUDGET:
            self.raise_error(f'constants of one value take {self._splats} bytes, expected at most '
                             f'{SPLAT_BUDGET}')
        return count

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
