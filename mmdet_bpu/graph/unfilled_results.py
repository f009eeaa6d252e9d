"""What a torch call returns, by shape alone: memory that nobody has filled.

A capture wants the shape, strides, dtype and aliasing of every tensor that depends on the image,
and none of its values. So a large call runs on torch's ``meta`` device, once for all calls of the
same shapes, and what is new there is allocated and left as it is found (integers are zeros: they
may index). Memory that is never touched takes none.
"""
from typing import Any, Callable, Dict, NamedTuple, Tuple

import torch
from torch import Tensor

from mmdet_bpu.graph.functional_forms import map_tensors, tensors_in

SMALL = 1 << 16
"""Elements of all arguments up to which a call runs as it is: quicker than to ask for shapes."""


class _Place(NamedTuple):
    """Where a tensor's elements lie, without them."""
    shape: Tuple[int, ...]
    stride: Tuple[int, ...]
    dtype: torch.dtype

    def allocated(self, device: Any) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)


class _Target(NamedTuple):
    """The result of a call in place: its target, or None where it returns nothing."""
    returned: bool


_AS_IT_IS = object()  # views, calls that return their argument, calls without a rule for shapes


class UnfilledResults:
    """Calls like functions do, values aside; it remembers what it has found out."""

    def __init__(self) -> None:
        self._found: Dict[Tuple[Callable, str], Any] = {}

    def call(self, func: Callable, args: tuple, kwargs: dict, in_place: bool) -> Any:
        """What ``func(*args, **kwargs)`` returns, with or without its values.

        Args:
            func (Callable): A torch function.
            args (tuple), kwargs (dict): Its arguments, at least one of them a tensor.
            in_place (bool): Whether it overwrites its first argument.
        """
        tensors = tensors_in((args, kwargs))
        if sum(tensor.numel() for tensor in tensors) <= SMALL:
            return func(*args, **kwargs)
        places = map_tensors((args, kwargs), _place)
        key = (func, repr(places))
        if key not in self._found:
            self._found[key] = _find(func, args, kwargs, in_place)
        found = self._found[key]
        if found is _AS_IT_IS:
            return func(*args, **kwargs)
        if isinstance(found, _Target):
            return args[0] if found.returned else None
        new = map_tensors(found, lambda shape: _unfilled(shape, tensors[0].device))
        return type(found)(new) if isinstance(found, tuple) else new  # such as return_types.max


def _find(func: Callable, args: tuple, kwargs: dict, in_place: bool) -> Any:
    shapes = {id(tensor): _place(tensor).allocated('meta') for tensor in tensors_in((args, kwargs))}
    meta_args, meta_kwargs = map_tensors((args, kwargs), lambda tensor: shapes[id(tensor)])
    try:
        result = func(*meta_args, **meta_kwargs)
    except Exception:  # of any kind: no rule for its shape, or what the call itself will say
        return _AS_IT_IS
    if in_place:
        kept = _place(meta_args[0]) == _place(args[0])
        return _Target(result is not None) if kept and (
            result is None or result is meta_args[0]) else _AS_IT_IS
    made = tensors_in(result)
    storages = {_storage(shape) for shape in shapes.values()}
    return _AS_IT_IS if not made or any(_storage(t) in storages for t in made) else result


def _place(tensor: Tensor) -> _Place:
    return _Place(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _unfilled(shape: Tensor, device: torch.device) -> Tensor:
    new = _place(shape).allocated(device)
    return new if shape.is_floating_point() else new.zero_()
