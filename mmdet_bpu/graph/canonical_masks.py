"""Masks that depend on the image: the sign of a tensor, what is combined of such, and choices.

A combination of masks is no operation. It is remembered, and the choice that reads it becomes
several:

    where(p | q, x, y)   ->   where(p, x, where(q, x, y))
    where(p & q, x, y)   ->   where(p, where(q, x, y), y)
    where(~p, x, y)      ->   where(p, y, x)
"""
from typing import Callable

import torch
from torch import fx

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.call_arguments import expanded, refuse, scalar_of, shape_of
from mmdet_bpu.graph.opgraph import GraphBuilder, ValueInfo


def sign(kind: str) -> Callable:
    """``x > 0`` or ``x >= 0``; other comparisons are opened into one of them."""

    def comparison(b: GraphBuilder, node: fx.Node, args: list, kwargs: dict) -> str:
        x, other = b.value(args[0]), (args[1:] or [*kwargs.values()])[0]
        if scalar_of(b, other) != 0:
            refuse(node, f'a comparison of {b.info(x).dtype} with another number than 0')
        return b.op(kind, [x], shape_of(node), dtype=torch.bool)

    return comparison


def combination(how: str) -> Callable:
    """``or``, ``and`` and ``not`` of masks; of anything else there is no integer form."""

    def combined(b: GraphBuilder, node: fx.Node, args: list, kwargs: dict) -> str:
        names = [b.value(n) for n in (*args, *kwargs.values())]
        if any(b.info(name).dtype != torch.bool for name in names):
            refuse(node, f'{how!r} of {b.info(names[0]).dtype}')
        b.graph.values[node.name] = ValueInfo(shape_of(node), torch.bool)
        b.combined[node.name] = (how, *names)
        return node.name

    return combined


def is_mask(b: GraphBuilder, name: str) -> bool:
    """Whether a value is a mask that depends on the image."""
    return b.info(name).dtype == torch.bool and not b.info(name).is_constant


def choice(b: GraphBuilder, node: fx.Node, mask: str, inside: str, outside: str) -> str:
    """Elements of ``inside`` where the mask is set, of ``outside`` elsewhere.

    Args:
        mask (str): Constant, sign or combination; broadcast.
        inside (str), outside (str): Values, constants among them; broadcast.
    """
    names = [n if b.info(n).is_constant else expanded(b, node, n) for n in (inside, outside)]
    return _choice(b, node, mask, *names, last=True)


def _choice(b: GraphBuilder, node: fx.Node, mask: str, inside: str, outside: str,
            last: bool) -> str:
    how, *parts = b.combined.get(mask, (None, ))
    if how == 'not':
        return _choice(b, node, parts[0], outside, inside, last)
    if how is not None:
        inner = _choice(b, node, parts[1], inside, outside, last=False)
        pair = (inside, inner) if how == 'or' else (inner, outside)
        return _choice(b, node, parts[0], *pair, last)
    if all(b.info(name).is_constant for name in (inside, outside)):
        refuse(node, 'a choice between constants')
    shape = shape_of(node)
    return b.op('select', [_of_rank(b, mask, len(shape)), inside, outside], shape,
                dtype=node.meta['dtype'], last=last)


def _of_rank(b: GraphBuilder, mask: str, rank: int) -> str:
    """A mask of as many dimensions: of the tensor, because masks are not reshaped in HBIR."""
    shape = b.info(mask).shape
    if b.info(mask).is_constant or len(shape) == rank:
        return mask
    sign = next(op for op in b.graph.ops if op.output == mask)
    shape = (1, ) * (rank - len(shape)) + tuple(shape)
    x = b.op('reshape', [sign.inputs[0]], shape, last=False)
    return b.op(sign.kind, [x], shape, dtype=torch.bool, last=False)


def chosen_number(b: GraphBuilder, node: fx.Node, mask: str, x: str, fill: float,
                  outside: bool) -> str:
    """A number inside (or outside) a mask that depends on the image, ``x`` elsewhere."""
    info = b.info(x)
    number = b.constant(torch.full((1, ) * len(info.shape), fill, dtype=info.dtype))
    return choice(b, node, mask, *((x, number) if outside else (number, x)))


def check_readers(b: GraphBuilder) -> None:
    """Refuse what reads masks that depend on the image, but for choices.

    Raises:
        BpuError: The message names the operation's site.
    """
    for op in b.graph.ops:
        if op.kind != 'select' and any(is_mask(b, name) for name in op.inputs):
            raise BpuError(f'{op.site} cannot be lowered: {op.kind} of a mask that depends on the '
                           'image; only a choice (torch.where) reads those')
