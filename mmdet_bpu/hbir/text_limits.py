"""Bounds of MLIR text that are checked before and while it is parsed.

The parser calls itself for everything that is nested, and a dense constant of one value takes the
memory of all of its elements: both are bounded before.
"""
import re
from typing import Optional

from mmdet_bpu.program.operation_checks import MAX_ELEMENTS, MAX_RANK

MAX_NESTING = 32
"""Of brackets of any kind; the text that is written here nests ten deep at most."""
SPLAT_BUDGET = 1 << 28
"""Bytes of all constants of a text that are written as one value."""

_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_BRACKETS = re.compile(r'"|//[^\n]*|->|[(\[{<>)\]}]')
_STEP = {**dict.fromkeys('([{<', 1), **dict.fromkeys(')]}>', -1)}


def too_deep(text: str) -> Optional[int]:
    """Where brackets are nested deeper than :data:`MAX_NESTING`, if they are."""
    depth, position = 0, 0
    while (match := _BRACKETS.search(text, position)) is not None:
        position = match.end()
        depth += _STEP.get(match[0], 0)
        if depth > MAX_NESTING:
            return match.start()
        if match[0] == '"':
            position = _after_string(text, match.start())
    return None


def _after_string(text: str, start: int) -> int:
    """Behind the string that starts there, or behind its quote if it does not end."""
    end = text.find('"', start + 1)
    # Nearly all letters of a text are digits of constants: a search for one letter is fastest.
    if end > 0 and text.find('\\', start, end) < 0 and text.find('\n', start, end) < 0:
        return end + 1
    match = _STRING.match(text, start)
    return start + 1 if match is None else match.end()


def shape_fault(shape: tuple[int, ...]) -> Optional[str]:
    """What is wrong with a tensor's shape: sizes are known, and elements can be counted."""
    if len(shape) > MAX_RANK:
        return f'a tensor of rank {len(shape)}, expected at most {MAX_RANK}'
    count = 1
    for size in shape:
        if size < 0:
            return f'a tensor of shape {shape}, expected sizes that are known'
        count *= max(size, 1)
    if count > MAX_ELEMENTS:
        return f'a tensor of shape {shape}, expected at most {MAX_ELEMENTS} elements'
    return None
