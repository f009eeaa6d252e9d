"""Cross-layer equalization: channels between two products get ranges that suit both.

Between two products with nothing but a relu, a channel can be divided by any positive factor and the
weights that read it multiplied by it. Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction" (ICCV 2019), eq. 11, takes the factor that makes the largest weight that
writes the channel equal to the largest that reads it. Here it is rounded to a power of two, so that the
float model computes what it did, bit for bit.
"""
from types import MappingProxyType
from typing import Dict, List, Mapping, NamedTuple, Optional

import torch
from torch import Tensor, nn

from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import QuantizedGraph

PRODUCTS = ('conv2d', 'linear')
ROUNDS = 3  # chains of pairs settle in as many
LARGEST_EXPONENT = 10  # of the factor of a channel, in all


class Pair(NamedTuple):
    """Names of the parameters of two products in a row.

    Attributes:
        weight (str), bias (str): Of the first; no bias is ''.
        reader (str): Weight of the second.
        depthwise (bool): Whether the second has one weight row a channel.
    """
    weight: str
    bias: str
    reader: str
    depthwise: bool


def pairs(graph: OpGraph) -> List[Pair]:
    """All pairs of ``graph`` whose weights nothing else reads."""
    users, found = graph.users(), []
    readers: Dict[str, int] = {}
    for op in graph.ops:
        for name in op.inputs:
            origin = graph.values[name].origin
            if origin:
                readers[origin] = readers.get(origin, 0) + 1

    def parameter(op: Op, index: int) -> str:
        if index >= len(op.inputs):
            return ''
        origin = graph.values[op.inputs[index]].origin
        return origin if readers.get(origin) == 1 else ''

    for op in graph.ops:
        reader = _reader(graph, users, op) if op.kind in PRODUCTS else None
        if reader is None or not parameter(op, 1) or not parameter(reader, 1):
            continue
        if len(op.inputs) > 2 and not parameter(op, 2):
            continue
        if op.kind != reader.kind:
            continue
        groups = reader.params.get('groups', 1)
        channels, rows = _channels(graph, op), _channels(graph, reader)
        if groups in (1, channels) and (groups == 1 or rows == channels):
            found.append(Pair(parameter(op, 1), parameter(op, 2), parameter(reader, 1),
                              groups > 1))
    return found


def _channels(graph: OpGraph, op: Op) -> int:
    return graph.values[op.inputs[1]].shape[0]


def _reader(graph: OpGraph, users: Dict[str, List[Op]], op: Op) -> Optional[Op]:
    """The product that alone reads ``op``, through a relu at most."""
    value = op.output
    for _ in range(2):
        if value in graph.outputs or len(users[value]) != 1:
            return None
        user = users[value][0]
        if user.kind in PRODUCTS and user.inputs[0] == value \
                and value not in user.inputs[1:]:
            return user
        if user.kind != 'relu':
            return None
        value = user.output
    return None


@torch.no_grad()
def equalize(model: nn.Module, network: QuantizedGraph,
             gammas: Mapping[str, Tensor] = MappingProxyType({})) -> List[Pair]:
    """Equalize all pairs of a detector, in place; returns them.

    Args:
        model (nn.Module): With folded batch norms.
        network (QuantizedGraph): What it is deployed as.
        gammas (Mapping[str, Tensor]): Weight of a convolution -> gamma of the norm that was folded into
            it, which goes with its channels, in place. Defaults to none.
    """
    parameters = dict(model.named_parameters())
    found = [pair for pair in pairs(network.graph)
             if all(name in parameters for name in filter(None, pair[:3]))]
    exponents: Dict[str, Tensor] = {}
    for _ in range(ROUNDS):
        for pair in found:
            weight, reader = parameters[pair.weight], parameters[pair.reader]
            exponent = _exponents(weight, reader, pair.depthwise)
            so_far = exponents.setdefault(pair.weight, torch.zeros_like(exponent))
            exponent = (so_far + exponent).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT) - so_far
            so_far += exponent
            factor = torch.exp2(exponent)
            weight.div_(factor.view(-1, *(1, ) * (weight.dim() - 1)))
            if pair.bias:
                parameters[pair.bias].div_(factor)
            if pair.weight in gammas:
                gammas[pair.weight].div_(factor)
            of_reader = (-1, 1) if pair.depthwise else (1, -1)
            reader.mul_(factor.view(*of_reader, *(1, ) * (reader.dim() - 2)))
    return found


def _exponents(weight: Tensor, reader: Tensor, depthwise: bool) -> Tensor:
    """Of each channel, the power of two nearest to what makes both sides alike; 0 for a dead one."""
    writes = weight.abs().flatten(1).amax(1)
    reads = (reader if depthwise else reader.transpose(0, 1)).abs().flatten(1).amax(1)
    alive = (writes > 0) & (reads > 0)
    ratio = torch.where(alive, writes, 1.0) / torch.where(alive, reads, 1.0)
    return (torch.log2(ratio) / 2).round()
