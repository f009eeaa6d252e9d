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

_BRACKETS = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|//[^\n]*|->|[(\[{<>)\]}]')
_STEP = {**dict.fromkeys('([{<', 1), **dict.fromkeys(')]}>', -1)}


def too_deep(text: str) -> Optional[int]:
    """Where brackets are nested deeper than :data:`MAX_NESTING`, if they are."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += _STEP.get(match[0], 0)
        if depth > MAX_NESTING:
            return match.start()
    return None


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
