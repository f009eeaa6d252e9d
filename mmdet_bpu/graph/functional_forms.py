"""What a torch function is to a tracer: in-place, shape-only, or a plain function of tensors."""
import functools
import operator
from typing import Any, Callable, Dict, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def set_item(x: Tensor, index: Any, value: Any) -> Tensor:
    """Functional ``x[index] = value``."""
    x = x.clone()
    x[index] = value
    return x


_IN_PLACE: Dict[Callable, Callable] = {
    Tensor.__iadd__: torch.add,
    Tensor.__isub__: torch.sub,
    Tensor.__imul__: torch.mul,
    Tensor.__itruediv__: torch.div,
    Tensor.__setitem__: set_item,
}
# Python binds the result of these, so a functional result may be returned instead.
REBINDING = {Tensor.__iadd__, Tensor.__isub__, Tensor.__imul__, Tensor.__itruediv__}

# Read only a tensor's shape, dtype and device: their results do not depend on the image.
SHAPE_ONLY = {
    torch._shape_as_tensor, torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like,
    torch.rand_like, torch.randn_like, Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty,
    Tensor.new_full, Tensor.new_tensor
}
# Read the values of their first tensor, and of the second one only shape and dtype.
LIKE_ANOTHER = {Tensor.expand_as, Tensor.view_as, Tensor.reshape_as, Tensor.type_as}
# Turn tensor values into Python values: control flow that a fixed graph cannot hold.
TO_PYTHON = {
    Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
    Tensor.__index__, Tensor.numpy, Tensor.__array__
}


def functional_form(func: Callable, kwargs: dict) -> Tuple[Callable, dict, bool]:
    """The out-of-place function for a call.

    Returns:
        tuple: (function without side effects, its keyword arguments, whether ``func`` as called
        overwrites its first argument).
    """
    if 'inplace' in kwargs and func not in _IN_PLACE:
        rest = {k: v for k, v in kwargs.items() if k != 'inplace'}
        return func, rest, bool(kwargs['inplace'])
    plain, in_place = _functional(func)
    return plain, kwargs, in_place


@functools.lru_cache(maxsize=4096)
def _functional(func: Callable) -> Tuple[Callable, bool]:
    if func in _IN_PLACE:
        return _IN_PLACE[func], True
    name = getattr(func, '__name__', '')
    if name.endswith('_') and not name.endswith('__'):
        plain = getattr(Tensor, name[:-1], None) or getattr(F, name[:-1], None)
        if plain is not None:
            return plain, True
    return func, False


def tensors_in(value: Any) -> list:
    """All tensors in nested tuples, lists, dicts and slices."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors_in(v)]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_in(v)]
    if isinstance(value, slice):
        return tensors_in((value.start, value.stop, value.step))
    return []


def map_tensors(value: Any, convert: Callable[[Tensor], Any]) -> Any:
    """``value`` with every tensor replaced by ``convert(tensor)``."""
    if isinstance(value, Tensor):
        return convert(value)
    if isinstance(value, tuple):
        return tuple(map_tensors(v, convert) for v in value)
    if isinstance(value, list):
        return [map_tensors(v, convert) for v in value]
    if isinstance(value, dict):
        return {k: map_tensors(v, convert) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(map_tensors(v, convert) for v in (value.start, value.stop, value.step)))
    return value


take_item = operator.getitem
