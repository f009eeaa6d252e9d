"""Mutations of JSON documents: what a writer that means harm would put where something else is."""
import copy
import json
import random
from typing import Any, Iterator

_RAW = {f'@raw {number}@': text for number, text in enumerate((
    'Infinity', '-Infinity', 'NaN', '1e999', '9' * 5000, '[' * 500 + ']' * 500,
    '[' * 100_000 + ']' * 100_000, '{"a":' * 300 + '1' + '}' * 300, '"\\ud800"', '"\\u0000"'))}
"""Text that no Python value is written as, by the string that stands for it until then."""

VALUES = [None, True, False, 0, 1, -1, 2, 7, 63, 64, 255, 1 << 15, 1 << 31, (1 << 31) - 1,
          -(1 << 31), 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 200, 0.0, -0.5,
          1.5, 1e-300,
          1e300, '', 'image', 'si8', 'si16', 'si32', 'i1', 'f32', 'int8', 'float64', 'object',
          'x' * 10_000, '../../x', '__class__', [], [[]], [0], [1 << 40, 1 << 40], [-1], [1] * 70,
          [True], ['a'], {}, {'array': []}, {'array': ['int64', [1 << 30, 1 << 30], 0]}, *_RAW]


def dump(value: Any) -> bytes:
    """JSON text with the raw pieces in it."""
    text = json.dumps(value, sort_keys=True, separators=(',', ':'))
    for mark, raw in _RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything in a document but its root."""
    items = (value.items() if isinstance(value, dict) else
             enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutated(document: Any, rng: random.Random, within: tuple = ()) -> tuple[Any, str]:
    """A copy of a document with one place changed, and what was changed in words.

    Args:
        document: Parsed JSON.
        rng (random.Random): Source of the choice.
        within (tuple): Path below which the place lies. Defaults to anywhere.
    """
    document = copy.deepcopy(document)
    paths = [path for path in places(document) if path[:len(within)] == within]
    if not paths or rng.random() < 0.02:
        value = rng.choice(VALUES)
        return value, f'the whole becomes {str(value)[:40]!r}'
    # Deep places are many and alike: half of the choices fall on the outer ones.
    depth = rng.randint(1, max(map(len, paths)))
    path = rng.choice([path for path in paths if len(path) <= depth])
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    key, value = path[-1], parent[path[-1]]
    change = rng.choice([_replace, _replace, _nudge, _remove, _repeat, _rename, _borrow])
    words = change(document, parent, key, value, paths, rng)
    return document, f'{"/".join(map(str, path))}: {words}'


def _replace(document, parent, key, value, paths, rng) -> str:
    parent[key] = rng.choice(VALUES)
    return f'{str(value)[:40]!r} becomes {str(parent[key])[:40]!r}'


def _nudge(document, parent, key, value, paths, rng) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _replace(document, parent, key, value, paths, rng)
    parent[key] = rng.choice([value + 1, value - 1, -value, value * 2, value * 1000, value * 10**7])
    return f'{value} becomes {parent[key]}'


def _remove(document, parent, key, value, paths, rng) -> str:
    del parent[key]
    return 'removed'


def _repeat(document, parent, key, value, paths, rng) -> str:
    if isinstance(parent, list):
        count = rng.choice([1, 2, 300])
        parent[key:key] = [copy.deepcopy(value) for _ in range(count)]
        return f'{count} times more'
    parent[f'{key}_again'] = copy.deepcopy(value)
    return 'there under another name too'


def _rename(document, parent, key, value, paths, rng) -> str:
    if not isinstance(parent, dict):
        return _replace(document, parent, key, value, paths, rng)
    name = rng.choice(['', 'x', '__proto__', str(key) * 2, 'scale', 'é', '\0'])
    parent[name] = parent.pop(key)
    return f'called {name!r}'


def _borrow(document, parent, key, value, paths, rng) -> str:
    other = document
    for step in rng.choice(paths):
        other = other[step]
    parent[key] = copy.deepcopy(other)
    return f'becomes what stands elsewhere, {str(other)[:60]!r}'
