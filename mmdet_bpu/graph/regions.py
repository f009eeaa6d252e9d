"""Classes of detector parts whose methods open a region of the tensor path.

The class of an instance is exchanged, never a method bound to it: a deepcopy of the model then
runs its own code.
"""
import functools
from contextlib import contextmanager
from typing import Dict, Iterator, Tuple

from torch import nn

from mmdet_bpu.graph.sites import active_tracker

_classes: Dict[tuple, type] = {}


def _in_region(cls: type, name: str, region: str):
    method = getattr(cls, name)

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        tracker = active_tracker()
        if tracker is None or tracker.stack:
            return method(self, *args, **kwargs)
        with tracker.region(region):
            return method(self, *args, **kwargs)

    return wrapper


def region_class(cls: type, methods: Tuple[str, ...], prefix: str, *bases: type) -> type:
    """A subclass of ``cls`` (and of ``bases`` before it) whose ``methods`` open regions."""
    slot = (cls, methods, prefix, bases)
    if slot not in _classes:
        body = {m: _in_region(cls, m, f'{prefix}{m}') for m in methods}
        body['__module__'] = cls.__module__
        body['bpu_stock_class'] = cls
        _classes[slot] = type(cls.__name__, (*bases, cls), body)
    return _classes[slot]


def enter_region_classes(model: nn.Module, regions: Dict[str, Tuple[str, ...]],
                         *root_bases: type) -> Dict[str, type]:
    """Exchange the classes of the parts named in ``regions``; returns the former classes."""
    former = {}
    for path, methods in regions.items():
        part = model.get_submodule(path)
        if hasattr(type(part), 'bpu_stock_class'):
            continue
        former[path] = type(part)
        prefix = f'{path}.' if path else ''
        bases = root_bases if not path else ()
        part.__class__ = region_class(type(part), methods, prefix, *bases)
    return former


@contextmanager
def with_regions(model: nn.Module, regions: Dict[str, Tuple[str, ...]]) -> Iterator[None]:
    """Region classes for the time of a capture."""
    former = enter_region_classes(model, regions)
    try:
        yield
    finally:
        for path, cls in former.items():
            model.get_submodule(path).__class__ = cls
