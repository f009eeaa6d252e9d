"""Rounding to a grid whose step is learned: of one scale, or of one for each channel."""
from math import sqrt
from typing import Any, Dict, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError


class LearnedOnGrid(torch.autograd.Function):
    """``clamp(round(x / scale)) * scale`` with the gradient of the scale's logarithm too.

    LSQ (Esser et al., ICLR 2020, equation 3): the derivative by the scale is ``round(v) - v`` inside the
    range and the end of the range outside of it, for ``v = x / scale``. Its gradient is multiplied by
    1 / sqrt(elements of the scale * largest integer) (section 2.2).

    ``step``, the logarithm's, has one element, or as many as ``x`` has channels (dim 0); ``scale`` as many,
    shaped to go with ``x``.
    """

    @staticmethod
    def forward(ctx, x: Tensor, step: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        exact = torch.div(x, scale)
        ctx.save_for_backward(exact, scale)
        ctx.range, ctx.channels = (low, high), len(step)
        return exact.round().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        exact, scale = ctx.saved_tensors
        low, high = ctx.range
        rounded = exact.round()
        clamped = rounded.clamp(low, high)
        inside = rounded == clamped
        by_scale = torch.where(inside, clamped - exact, clamped)
        factor = scale.flatten() / sqrt(max(exact.numel() // ctx.channels, 1) * high)
        of_step = (gradient * by_scale).reshape(ctx.channels, -1).sum(1) * factor
        return gradient * inside, of_step, None, None, None


class WithoutSteps(nn.Module):
    """A module whose parameters are steps: 0 between two training steps, so no checkpoint holds them."""

    def _save_to_state_dict(self, destination: Dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._parameters:
            del destination[prefix + name]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        nothing = {prefix + name: torch.zeros_like(step) for name, step in self._parameters.items()}
        super()._load_from_state_dict({**state_dict, **nothing}, prefix, *rest)


@torch.no_grad()
def take(values: Sequence[Tensor], steps: Sequence[Tensor], least: float, most: float,
         moving: bool) -> None:
    """Multiply values by the exponentials of their steps and keep them in a range, if they move, in place.

    Steps are 0 from then on: what stays forgets what an optimizer's momentum would still do to it.
    """
    if not values:
        return
    if moving:
        torch._foreach_mul_(values, torch._foreach_exp(steps))
        torch._foreach_clamp_min_(values, least)
        torch._foreach_clamp_max_(values, most)
    torch._foreach_zero_(steps)


def number_from(value: Any, name: str, least: float) -> float:
    """An argument of what learns, checked.

    Raises:
        BpuError: It is no number from ``least`` on.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
        raise BpuError(f'{name}: expected a number from {least:g} on, found {value!r}')
    return float(value)
