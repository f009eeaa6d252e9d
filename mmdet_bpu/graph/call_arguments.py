"""What the translations of captured calls share: how arguments are read."""
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import fx

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import GraphBuilder

Handler = Callable[[GraphBuilder, fx.Node, list, dict], Optional[str]]


def axis_of(dim: int, rank: int) -> int:
    return dim + rank if dim < 0 else dim


def refuse(node: fx.Node, why: str) -> None:
    raise BpuError(f'{node.meta.get("site", node.name)} cannot be lowered: {why}')


def shape_of(node: fx.Node) -> Tuple[int, ...]:
    return node.meta['shape']


def scalar_of(b: GraphBuilder, operand: Any) -> Optional[float]:
    """The number that an operand stands for, if it is one.

    A constant tensor counts when all its elements are equal and no training changes them.
    """
    if isinstance(operand, (int, float)):
        return float(operand)
    info = b.info(b.value(operand))
    if info.data is None or info.learned or info.data.dtype == torch.bool or not info.data.numel():
        return None
    first = info.data.flatten()[0]
    return float(first) if bool((info.data == first).all()) else None


def expanded(b: GraphBuilder, node: fx.Node, name: str) -> str:
    """``name`` broadcast to the node's shape, where it is smaller."""
    if b.info(name).shape == shape_of(node):
        return name
    return b.op('expand', [name], shape_of(node), last=False)


def pair(value: Any) -> List[int]:
    """[height, width] of an argument that may be one number for both."""
    return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)] * 2
