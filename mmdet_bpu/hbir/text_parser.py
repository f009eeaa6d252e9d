"""xDSL's parser with dense data read as bytes, long lists read at once, and the place of each
operation kept."""
import math
import re

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (ArrayAttr, BytesAttr, DenseArrayBase, DenseIntOrFPElementsAttr,
                                   FloatAttr, IntegerAttr, f64, i64)
from xdsl.ir import Operation
from xdsl.parser import Parser, ParserState
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer

from mmdet_bpu.hbir.text_limits import SPLAT_BUDGET, shape_fault
from mmdet_bpu.hbir.types import element_name

_NUMBER = r'-?\d+(?:\.\d*(?:[eE][+-]?\d+)?)?'
_NUMBERS = re.compile(rf'\[\s*({_NUMBER}(?:\s*,\s*{_NUMBER})*)\s*\]', re.ASCII)
_INTEGERS = re.compile(r'<\s*i64\s*:\s*(-?\d+(?:\s*,\s*-?\d+)*)\s*>', re.ASCII)
"""Plain lists ``[1, 2.5]`` and ``<i64: 1, 2>``, read at once: token by token, the scales and
multipliers of all channels of a model would take longer than all the rest."""


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

    def _scan(self, pattern: re.Pattern) -> re.Match | None:
        """Match raw text from the current token on, and go past it where it matches."""
        match = pattern.match(self.lexer.input.content, self._current_token.span.start)
        if match is not None:
            self._resume_from(match.end())
        return match

    def _parse_builtin_densearray_attr(self) -> DenseArrayBase | None:
        match = self._scan(_INTEGERS)
        if match is None:
            return super()._parse_builtin_densearray_attr()
        return DenseArrayBase.from_list(i64, list(map(int, match[1].split(','))))

    def _parse_optional_array_attr(self) -> ArrayAttr | None:
        match = self._scan(_NUMBERS)
        if match is None:
            return super()._parse_optional_array_attr()
        return ArrayAttr(FloatAttr(float(item), f64) if '.' in item else
                         IntegerAttr(int(item), i64) for item in match[1].split(','))

    def _parse_optional_complex(self) -> None:
        """No type here is complex, and xDSL fails at what is nearly a complex number."""
        return None

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
