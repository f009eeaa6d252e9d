"""What rounding changes of the loss, to first order: of every tensor, in one backward pass.

    dL = sum over the elements of  (dL / dx) * (Q(x) - x)

Exact as the step of the integers goes to zero, signs included. It sees nothing of what has no
gradient: a top-k that picks others, reference points that training detaches.
"""
from collections import defaultdict
from contextlib import contextmanager
from typing import Any, Collection, Dict, Iterator, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from mmdet_bpu.analysis.alone import Alone
from mmdet_bpu.quantization.fake_quant import (FakeQuantizer, QuantState, fake_quantize,
                                               fake_quantize_weight)
from mmdet_bpu.quantization.quant_mode import QuantMode

Changes = Dict[Tuple[str, str], float]
"""(Name of a tensor, dtype) -> change of a batch's loss."""


class _Watched(torch.autograd.Function):
    """The tensor as it is; on the way back its gradient meets what rounding would change."""

    @staticmethod
    def forward(ctx, x: Tensor, watcher: '_Watcher', factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.watcher, ctx.factor = watcher, factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        x, = ctx.saved_tensors
        ctx.watcher.meet(x, gradient, ctx.factor)
        return gradient, None, None


class _Watcher(FakeQuantizer):
    """Stands where a quantizer does and rounds nothing.

    Args:
        name (str): Of the tensor.
        scales (Mapping[str, float]): dtype -> scale.
        changes (dict): Where the changes are added up.
    """

    def __init__(self, name: str, scales: Mapping[str, float], changes: Changes) -> None:
        super().__init__('int8', scale=1.0)
        self.name, self.scales, self.changes = name, dict(scales), changes
        self.state = QuantState.BOTH  # a relu before it is not taken in

    def forward(self, x: Tensor, owned: bool = False) -> Tensor:
        return self.on_grid(x)

    def on_grid(self, x: Tensor, owned: bool = False, factor: float = 1.0) -> Tensor:
        return _Watched.apply(x, self, factor) if torch.is_grad_enabled() else x

    def meet(self, x: Tensor, gradient: Tensor, factor: float) -> None:
        """Add up what rounding ``x`` changes."""
        for dtype, scale in self.scales.items():
            rounded = fake_quantize(x, torch.tensor([scale * factor], device=x.device), dtype)
            self.changes[self.name, dtype] += _product(rounded, x, gradient)


class _WatchedWeight(torch.autograd.Function):
    """The same of a weight."""

    @staticmethod
    def forward(ctx, weight: Tensor, name: str, form: tuple, changes: Changes) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.name, ctx.form, ctx.changes = name, form, changes
        return weight.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        weight, = ctx.saved_tensors
        rounded = fake_quantize_weight(weight, *ctx.form)
        ctx.changes[ctx.name, ctx.form[0]] += _product(rounded, weight, gradient)
        return gradient, None, None, None


class _WatchingMode(QuantMode):
    """Watches weights too."""
    changes: Changes

    def repeated(self) -> 'QuantMode':
        twin = super().repeated()
        twin.__class__, twin.changes = type(self), self.changes
        return twin

    def _weight(self, weight: Tensor, dtype: str, groups: Optional[int], name: str) -> Tensor:
        if not torch.is_grad_enabled():
            return weight
        form = dtype, groups, self.decisions.reach.of(name)
        return _WatchedWeight.apply(weight.detach().requires_grad_(), name, form, self.changes)


def _product(rounded: Tensor, x: Tensor, gradient: Tensor) -> float:
    # What is infinite saturates in the whole model too, where no gradient comes.
    change = torch.nan_to_num(rounded - x.float(), nan=0.0, posinf=0.0, neginf=0.0)
    return (change * gradient).sum(dtype=torch.float64).item()


def first_order_changes(model: nn.Module, alone: Alone, batch: Dict[str, Any],
                        scales: Mapping[str, Mapping[str, float]], weights: Collection[str],
                        seed: int = 0) -> Changes:
    """Change of a batch's loss by each tensor alone, to first order.

    Args:
        model (nn.Module): A prepared detector, in
            :func:`~mmdet_bpu.analysis.detector_loss.as_in_training`.
        alone (Alone): Of it.
        batch (dict): ``inputs`` (N, C, H, W), normalised, and ``data_samples`` with labels.
        scales (Mapping): Public name of a quantizer -> dtype -> scale.
        weights (Collection[str]): Public names of weights.
        seed (int): Of torch's generator.

    Returns:
        dict: Also of tensors that no gradient reaches: 0.
    """
    changes: Changes = defaultdict(float)
    watchers = {name: _Watcher(name, by_dtype, changes) for name, by_dtype in scales.items()}
    image = batch['inputs'].detach().requires_grad_()  # or what frozen layers make has no gradient
    with _parameters_alone(model), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        with alone.running(watchers, weights, _WatchingMode) as mode:
            mode.changes = changes
            losses = model(image, batch['data_samples'], mode='loss')
        total, _ = model.parse_losses(losses)
        total.backward()
    return changes


@contextmanager
def _parameters_alone(model: nn.Module) -> Iterator[None]:
    """Inside, parameters gather no gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
