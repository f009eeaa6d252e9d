"""JSON of a file that may be hostile: bounded depth and numbers, each key once, whole text."""
import json
import math
import re
from collections import Counter
from typing import Any

MAX_DEPTH = 64
INT64 = range(-1 << 63, 1 << 63)
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LONG = re.compile(r'(?<![\d.])\d{19}')
"""Of fewer digits every integer is an int64, and need not be looked at."""
_SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')


def read_json(content: bytes | str) -> Any:
    """Parse a document.

    Raises:
        ValueError: It is no JSON in UTF-8, nested deeper than :data:`MAX_DEPTH`, repeats a key, or
            has a number that is not finite or no int64, or half of a surrogate pair.
    """
    text = content.decode() if isinstance(content, bytes) else content
    _check_depth(text)
    value = json.loads(text, object_pairs_hook=_table, parse_float=_finite,
                       parse_int=_int64 if _LONG.search(text) else int, parse_constant=_finite)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _TOKENS.finditer(text):
        depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f'nested more than {MAX_DEPTH} deep')


def _table(pairs: list[tuple[str, Any]]) -> dict:
    table = dict(pairs)
    if len(table) != len(pairs):
        (name, _), = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f'{name[:80]!r} is there twice')
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text[:80]} is not a finite number')
    return value


def _int64(text: str) -> int:
    if len(text) > 20 or int(text) not in INT64:
        raise ValueError(f'{text[:80]} is not an int64')
    return int(text)
