"""Tensors that a model holds before it sees an image: constants of its graph.

Besides parameters and buffers these are tensors in plain attributes, and in the plain objects that
modules hold: the base anchors of an anchor generator, the project matrix of a box coder.
"""
from types import FunctionType, MethodType, ModuleType
from typing import Any, Dict, Iterator, List

from torch import Tensor, nn

DEEPEST = 4  # objects and containers around a tensor; stock heads need three
_NO_HOLDERS = (type, FunctionType, MethodType, ModuleType, str, bytes, int, float)


def held_tensors(model: nn.Module) -> List[Tensor]:
    """Parameters, buffers, and tensors in plain attributes and plain objects, each once."""
    seen: Dict[int, int] = {}
    found = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        for value in vars(module).values():
            found += _tensors_in(value, DEEPEST, seen)
    return list({id(tensor): tensor for tensor in found}.values())


def _tensors_in(value: Any, depth: int, seen: Dict[int, int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    # Modules are visited where they are registered.
    if isinstance(value, (*_NO_HOLDERS, nn.Module)) or seen.get(id(value), 0) >= depth:
        return
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif hasattr(value, '__dict__'):
        parts = list(vars(value).values())
    else:
        return
    seen[id(value)] = depth
    for part in parts:
        yield from _tensors_in(part, depth - 1, seen)
