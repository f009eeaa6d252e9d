"""Checkpoint contents as plain data, and back.

``torch.load(weights_only=True)`` restores tensors, numbers, strings, lists, tuples, dicts and
``OrderedDict``. mmengine puts more in a checkpoint: log buffers, numpy arrays and scalars, config
dicts. :func:`to_plain` writes each of them as a tagged dict of plain data and :func:`from_plain`
builds them again, so nothing has to be allow-listed and no class is looked up by name.
"""
from collections import Counter, OrderedDict, deque
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Iterator, Set

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmdet_bpu.errors import BpuError

TAG = '__plain__'
# Far above what a training keeps: a few shared lists, ten deep; texts of some ten characters.
MOST_REPEATED = 10_000
DEEPEST = 100
MOST_CHARACTERS = 10_000_000
_SCALARS = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.dtype,
            torch.device, torch.Size)


def to_plain(value: Any, path: str = 'checkpoint') -> Any:
    """Copy ``value`` with everything but tensors turned into plain data.

    Args:
        value (Any): Tensors, numbers, containers, numpy data, ``HistoryBuffer``.
        path (str): Name of ``value`` in messages.

    Raises:
        BpuError: Something below ``value`` has no plain form; the message says where.
    """
    kind = type(value)
    if kind in _SCALARS or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, HistoryBuffer):
        values, counts = value.data
        return {TAG: 'history', 'max_length': value.max_length,
                'values': to_plain(np.asarray(values), path),
                'counts': to_plain(np.asarray(counts), path)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain_array(value, path)
    if isinstance(value, Counter):
        return {TAG: 'counter', 'items': [[key, count] for key, count in value.items()]}
    if isinstance(value, dict):
        items = {_plain_key(key, path): to_plain(item, f'{path}[{key!r}]')
                 for key, item in value.items()}
        if not isinstance(value, OrderedDict):
            return items
        ordered = OrderedDict(items)
        if hasattr(value, '_metadata'):  # versions that torch's modules read when they load
            ordered._metadata = value._metadata
        return ordered
    if isinstance(value, (set, frozenset, deque)):
        name = {set: 'set', frozenset: 'frozenset'}.get(kind, 'deque')
        return {TAG: name, 'items': [to_plain(item, f'{path}[...]') for item in value]}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f'{path}[{i}]') for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, PurePath):
        return str(value)
    raise BpuError(f'{path} holds a {kind.__module__}.{kind.__qualname__}, which cannot be saved '
                   'as plain data; expected tensors, numbers, strings and containers of them')


def from_plain(value: Any) -> Any:
    """Undo :func:`to_plain`. Data without tags is returned as it is, containers copied.

    Raises:
        BpuError: Containers that hold themselves, or so many of each other that a copy would not
            end.
        ValueError, TypeError, KeyError, AssertionError: A tag with other contents than it has.
    """
    return _Restored().of(value)


class Bounded:
    """Goes through containers, not too often through one, and not too deep.

    A file of a few bytes can hold a list twice in another, that one twice in a third and so on, or a
    list in itself.
    """

    def __init__(self) -> None:
        self._seen: Set[int] = set()
        self.repeated = self.depth = 0

    @contextmanager
    def inside(self, container: Any) -> Iterator[None]:
        """Go through a container; all that are gone through have to stay alive.

        Raises:
            BpuError: Too many that were gone through before, or too deep.
        """
        if len(container):
            self.repeated += id(container) in self._seen
            self._seen.add(id(container))
        self.depth += 1
        if self.repeated > MOST_REPEATED or self.depth > DEEPEST:
            raise BpuError(f'its metadata holds itself, or over {MOST_REPEATED} times what it holds '
                           f'already, or lists and dicts over {DEEPEST} deep')
        yield
        self.depth -= 1


class _Restored(Bounded):

    def of(self, value: Any) -> Any:
        if isinstance(value, dict):
            with self.inside(value):
                if TAG in value:
                    return _RESTORE[value[TAG]](value, self.of)
                if not isinstance(value, OrderedDict):
                    return {key: self.of(item) for key, item in value.items()}
                ordered = OrderedDict((key, self.of(item)) for key, item in value.items())
                if hasattr(value, '_metadata'):
                    ordered._metadata = value._metadata
                return ordered
        if type(value) in (list, tuple):
            with self.inside(value):
                return type(value)(self.of(item) for item in value)
        return value


def _plain_key(key: Any, path: str) -> Any:
    if isinstance(key, np.generic):
        return key.item()
    if isinstance(key, (str, int, float, bool, tuple, type(None))):
        return key
    raise BpuError(f'{path} has a key of type {type(key).__qualname__}; expected text or a number')


def _plain_array(value: np.ndarray, path: str) -> dict:
    if value.dtype.kind in 'biufc':
        # Bytes, not a tensor of the same type: torch lacks some of numpy's types.
        data = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        return {TAG: 'array', 'dtype': value.dtype.str, 'shape': list(value.shape), 'data': data}
    if value.dtype.kind == 'U':
        return {TAG: 'text_array', 'items': value.tolist()}
    raise BpuError(f'{path} holds a numpy array of {value.dtype}; expected numbers or text')


def _array(plain: dict) -> np.ndarray:
    data = plain['data'].cpu().numpy().tobytes()
    return np.frombuffer(data, dtype=np.dtype(plain['dtype'])).reshape(plain['shape']).copy()


def _text_array(plain: dict) -> np.ndarray:
    items = np.array(plain['items'], dtype=object)
    # numpy gives each as much room as the longest.
    if items.size * max((len(text) for text in items.flat), default=0) > MOST_CHARACTERS:
        raise BpuError(f'its metadata holds an array of {items.size} texts that is too long')
    return items.astype(str)


def _history(plain: dict) -> HistoryBuffer:
    return HistoryBuffer(_array(plain['values']), _array(plain['counts']), plain['max_length'])


_RESTORE = {
    'history': lambda plain, _: _history(plain),
    'array': lambda plain, _: _array(plain),
    'text_array': lambda plain, _: _text_array(plain),
    'counter': lambda plain, _: Counter(dict(plain['items'])),
    'set': lambda plain, of: set(of(plain['items'])),
    'frozenset': lambda plain, of: frozenset(of(plain['items'])),
    'deque': lambda plain, of: deque(of(plain['items'])),
}
