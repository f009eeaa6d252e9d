"""How far the integers of a weight reach: chosen once, at calibration.

A channel's scale is its largest magnitude over the largest integer, times its reach, at most 1. While
weights train their magnitude changes, and the scale with it; the reach stays.
"""
from typing import Iterator, Optional, Sequence, Set, Tuple, Union

import torch
from torch import Tensor, nn

from mmdet_bpu.graph.opgraph import OpGraph
from mmdet_bpu.graph.quantized_graph import WEIGHT_DTYPE, QuantizedGraph
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged
from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.observers import build_observer


def reach_of(weight: Tensor, observer: Union[str, dict], dtype: str = WEIGHT_DTYPE) -> Tensor:
    """Reach of each output channel by an observer that sees its weights, float32 (O, ).

    Args:
        weight (Tensor): Output channels first.
        observer (str | dict): A criterion by name or config.
        dtype (str): ``int8`` or ``int16``.
    """
    criterion, integers = build_observer(observer), integer_range(dtype)
    rows = weight.detach().float().cpu().flatten(1)
    largest = rows.abs().amax(1)
    reach = torch.ones(len(rows))
    for channel in largest.nonzero().flatten().tolist():
        criterion.reset()
        criterion.observe(rows[channel])
        reach[channel] = criterion.scale(integers) * integers[1] / largest[channel]
    return reach.clamp(max=1.0)


class WeightReach(nn.Module):
    """Reaches of the weights whose observer is not the largest magnitude, by their public name.

    Args:
        networks (Sequence[QuantizedGraph]): Say whose they are.

    Attributes:
        moving (bool): Whether those that are learned move now; not where no gradients are asked for.
        given (tuple[str]): Public names of weights that have a reach only because it is learned.
    """
    moving = False
    given: Tuple[str, ...] = ()

    def __init__(self, networks: Sequence[QuantizedGraph]) -> None:
        super().__init__()
        self.names: Set[str] = set()
        for network in networks:
            for name, weight in _weights(network, network.graph):
                self.names.add(name)
                self.register_buffer(buffer_name(name), torch.ones(len(weight)))

    def of(self, name: str) -> Optional[Tensor]:
        """Reach of each channel; None where all of them are 1."""
        return getattr(self, buffer_name(name)) if name in self.names else None

    def rounded(self, weight: Tensor, dtype: str, groups: Optional[int], name: str) -> Tensor:
        """A weight on its grid.

        Args:
            weight (Tensor), dtype (str), groups (int, optional): See :func:`fake_quantize_weight`.
            name (str): Its public name.
        """
        return fake_quantize_weight(weight, dtype, groups, self.of(name))

    def steps(self) -> Iterator[nn.Parameter]:
        """What an optimizer trains of the reaches: nothing where they stay."""
        return iter(())

    def take_steps(self) -> None:
        """Move the reaches as a training step, which has ended, says; they stay where nothing is learned."""

    def whole(self, name: str) -> None:
        """Let a weight's integers reach to its largest magnitudes from here on."""
        if name in self.names:
            getattr(self, buffer_name(name)).fill_(1.0)

    @torch.no_grad()
    def choose(self, network: QuantizedGraph, graph: OpGraph) -> None:
        """Choose all reaches from the weights that ``graph``, the network's, holds now."""
        for name, weight in _weights(network, graph):
            getattr(self, buffer_name(name)).copy_(reach_of(weight, network.weight_observers[name]))


def _weights(network: QuantizedGraph, graph: OpGraph) -> Iterator[Tuple[str, Tensor]]:
    """Weights that have observers, each once, output channels first."""
    seen: Set[str] = set()
    for op in graph.ops:
        if KINDS[op.kind].weight is None:
            continue
        name = network.weight_name(op)
        if name in seen or name not in network.weight_observers:
            continue
        seen.add(name)
        weight = graph.values[op.inputs[KINDS[op.kind].weight]].data
        if KINDS[op.kind].transposed:
            weight = channels_exchanged(weight, op.params['groups'])
        yield name, weight


def buffer_name(name: str) -> str:
    """Name of the buffer of a weight's reach."""
    return name.replace('.', '|')
