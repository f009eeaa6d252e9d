"""LSQ of weights: how far the integers of each channel reach is learned with the weights.

A channel's scale goes on following its largest magnitude (:mod:`~mmdet_bpu.quantization.weight_reach`).
What is trained is a step of the reach's logarithm, as it is of an activation's scale
(:mod:`~mmdet_bpu.quantization.trained_scales`).
"""
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.graph.scales import weight_scale
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged
from mmdet_bpu.quantization.learned_grid import LearnedOnGrid, WithoutSteps, number_from, take
from mmdet_bpu.quantization.qconfig import WHOLE
from mmdet_bpu.quantization.weight_reach import WeightReach, buffer_name

FIXED, LEARNED = 'fixed', 'learned'
"""Kinds of ``bpu.qat.weight_reach``."""
LR_MULT = 10.0
SMALLEST, WHOLE_REACH = 2.0**-10, 1.0
STEP = 'step|'


def rate_of_reach(how: Union[str, Mapping[str, Any]], where: str = 'bpu.qat.weight_reach'
                  ) -> Optional[float]:
    """``lr_mult`` of reaches that are learned; None where they stay.

    Args:
        how (str | Mapping): ``'fixed'``, ``'learned'``, or a dict with one as its ``type`` and ``lr_mult``.
        where (str): The config's field, for the message.

    Raises:
        BpuError: It is something else.
    """
    how = dict(type=how) if isinstance(how, str) else dict(how)
    kind = how.pop('type', None)
    if kind not in (FIXED, LEARNED):
        raise BpuError(f"field {where}: expected {FIXED!r}, {LEARNED!r}, or a dict with one of them as its "
                       f'type, found {kind!r}')
    rate = how.pop('lr_mult', LR_MULT) if kind == LEARNED else None
    if how:
        raise BpuError(f'field {where}: {kind!r} has no {", ".join(map(str, how))}')
    return None if rate is None else number_from(rate, f'field {where}.lr_mult', 0.0)


def build_reach(network: QuantizedGraph, how: Union[str, Mapping[str, Any]]) -> WeightReach:
    """The reaches of a network's weights.

    Args:
        network (QuantizedGraph): Where reaches are learned, all its weights have one from here on.
        how (str | Mapping): ``bpu.qat.weight_reach``.
    """
    rate = rate_of_reach(how)
    if rate is None:
        return WeightReach([network])
    return LearnedReach([network], give_all_a_reach(network), rate)


def give_all_a_reach(network: QuantizedGraph) -> List[str]:
    """Let the weights that have no observer have that of the largest magnitude, in place.

    So they have a reach, 1 as yet, and a checkpoint says that they do.

    Returns:
        list[str]: Their public names.
    """
    names = {network.weight_name(op) for op in network.graph.ops if KINDS[op.kind].weight is not None}
    given = sorted(names - set(network.weight_observers))
    network.weight_observers = {**network.weight_observers, **{name: WHOLE for name in given}}
    return given


def reach_state(model: nn.Module) -> Dict[str, Tensor]:
    """What a checkpoint lacks of a prepared detector, in which some weights had no reach."""
    reach = model.quant.reach
    return {f'quant.reach.{buffer_name(name)}': reach.of(name) for name in reach.given}


class LearnedReach(WithoutSteps, WeightReach):
    """Reaches of all weights, which move in training.

    Args:
        networks (Sequence[QuantizedGraph]): Say whose they are.
        given (Sequence[str]): Public names of weights whose reach no calibration has chosen.
        lr_mult (float): Rate of a reach's logarithm over that of the weights.
    """

    def __init__(self, networks: Sequence[QuantizedGraph], given: Sequence[str],
                 lr_mult: float) -> None:
        super().__init__(networks)
        self.given, self.lr_mult = tuple(given), lr_mult
        for name, reach in list(self.named_buffers()):
            self.register_parameter(STEP + name, nn.Parameter(torch.zeros_like(reach)))

    def steps(self) -> Iterator[nn.Parameter]:
        """float32 (O, ) a weight; 0 but between an optimizer's step and :meth:`take_steps`."""
        return self.parameters()

    def rounded(self, weight: Tensor, dtype: str, groups: Optional[int], name: str) -> Tensor:
        if not (self.moving and torch.is_grad_enabled()):
            return super().rounded(weight, dtype, groups, name)
        rows = weight.float()
        if groups is not None:
            rows = channels_exchanged(rows, groups)
        scale = weight_scale(rows, dtype, self.of(name)).view(-1, *(1, ) * (rows.dim() - 1))
        step = getattr(self, STEP + buffer_name(name))
        rows = LearnedOnGrid.apply(rows, step, scale, *integer_range(dtype))
        return rows if groups is None else channels_exchanged(rows, groups)

    def take_steps(self) -> None:
        take(list(self.buffers()), [step.data for step in self.steps()], SMALLEST, WHOLE_REACH, self.moving)
