"""Which of its two neighbours on the grid each weight takes: what both ways to learn rounding share."""
from typing import Optional

import torch
from torch import Tensor, nn

from mmdet_bpu.graph.scales import weight_scale
from mmdet_bpu.program.dtypes import integer_range

STRETCH = -0.1, 1.1  # of the soft choice, eq. 23
BETA = 20.0, 2.0  # of the regularizer, from first to last
WARM_UP = 0.2  # share of the iterations without it


class Neighbours:
    """The grid of a weight, and what lies beside each element.

    Attributes:
        scale (Tensor): Of each channel, shaped to go with the weight.
        exact (Tensor), below (Tensor), nearest (Tensor): In units of the scale.
        fixed (Tensor): Where there is no choice.

    Args:
        weight (Tensor): Output channels first.
        reach (Tensor, optional): Of each channel; see :func:`~mmdet_bpu.graph.scales.weight_scale`.
        dtype (str): ``int8`` or ``int16``.
    """

    def __init__(self, weight: Tensor, reach: Optional[Tensor] = None, dtype: str = 'int8') -> None:
        high = integer_range(dtype)[1]
        low = -high  # a magnitude beyond would be the one that the scale is found by
        self.scale = weight_scale(weight, dtype, reach).view(-1, *(1, ) * (weight.dim() - 1))
        self.exact = torch.div(weight.detach().float(), self.scale)
        self.below = self.exact.floor()
        self.nearest = self.exact.round().clamp(low, high)
        # What reaches to the end of the grid stays there: the scale is found by it.
        self.fixed = (self.below < low) | (self.below >= high) | (self.exact == self.below) \
            | (self.nearest.abs() == high)


def logit_of(part: Tensor) -> Tensor:
    """The choice whose stretched sigmoid is ``part``."""
    low, high = STRETCH
    return torch.logit((part.clamp(0.01, 0.99) - low) / (high - low))


def regularizer_power(step: int, iterations: int) -> Optional[float]:
    """Exponent of the regularizer that drives choices to 0 or 1 (eq. 24); None while there is none."""
    begin = int(iterations * WARM_UP)
    if step < begin:
        return None
    return BETA[1] + (BETA[0] - BETA[1]) * (1 - (step - begin) / (iterations - begin))


class SoftWeight(nn.Module):
    """A weight between its neighbours, as a choice says that is being learned.

    Args:
        weight (Tensor): As it was meant.
        reach (Tensor, optional): Of it.
        start (Tensor): On its grid: where learning begins.
    """

    def __init__(self, weight: Tensor, reach: Optional[Tensor], start: Tensor) -> None:
        super().__init__()
        self.grid = grid = Neighbours(weight, reach)
        self.start = torch.round(torch.div(start.detach().float(), grid.scale))
        part = ((grid.exact - grid.below) + (self.start - grid.below)) / 2
        self.choice = nn.Parameter(logit_of(part))

    @property
    def share(self) -> Tensor:
        """Of the way from the lower neighbour to the upper, 0 to 1."""
        low, high = STRETCH
        return (torch.sigmoid(self.choice) * (high - low) + low).clamp(0, 1)

    def soft(self) -> Tensor:
        """The weight between its neighbours."""
        return torch.where(self.grid.fixed, self.start, self.grid.below + self.share) * self.grid.scale

    def hard(self) -> Tensor:
        """The weight on its grid."""
        up = (self.choice.detach() >= 0).to(self.start)
        return torch.where(self.grid.fixed, self.start, self.grid.below + up) * self.grid.scale
