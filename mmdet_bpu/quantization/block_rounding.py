"""Learned rounding block by block: weights of a block together, so that its outputs err least.

A block is a module that a forward calls once, with 2 to :data:`MOST` products inside: a residual block,
an encoder layer, its attention. Its inputs are those of the quantized detector, whose earlier blocks are
rounded already, and its outputs are held against those of the float detector: Li et al., "BRECQ: Pushing
the Limit of Post-Training Quantization by Block Reconstruction" (ICLR 2021), section 3.2, with the choice
and the regularizer of Nagel et al. (:mod:`~mmdet_bpu.quantization.rounding`). It begins at what was found
layer by layer, and a block that errs more than that, on images that it has not learned from, keeps it.
"""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.graph.functional_forms import map_tensors
from mmdet_bpu.graph.sites import active_tracker, tracking
from mmdet_bpu.quantization.fake_quant import QuantState
from mmdet_bpu.quantization.quant_mode import Decisions, QuantMode
from mmdet_bpu.quantization.quantized_detector import Quantization
from mmdet_bpu.quantization.recomputation import recomputing_alike
from mmdet_bpu.quantization.weight_choices import SoftWeight, regularizer_power
from mmdet_bpu.quantization.weight_reach import WeightReach

MOST = 8
JUDGES = 4  # one batch of so many is not learned from, but says whether a block errs less
RATE = 3e-2
WEIGHT = 0.1  # of the regularizer


class Block(NamedTuple):
    """Path of a module, and the public names of the weights inside."""
    path: str
    weights: List[str]


class Errors(NamedTuple):
    """Of a block, in units of its error with weights rounded layer by layer.

    Attributes:
        left (float): With the weights that it has now.
        without (float): With weights that are not rounded: what is left is the rounding of activations.
    """
    left: float
    without: float


@dataclass
class Call:
    """A block's call in the forward of a batch.

    Attributes:
        args (tuple), kwargs (dict): What the quantized detector gives it.
        place (tuple): Of its beginning; see :meth:`~mmdet_bpu.graph.sites.SiteTracker.place`.
        target (list[Tensor]): What it gives back in the float detector.
    """
    args: tuple
    kwargs: Dict[str, Any]
    place: tuple
    target: List[Tensor]


class _Reached(Exception):
    """A forward has come as far as it is needed."""


class _Rounding(WeightReach):
    """Gives the weights that are being learned as they are now, others as they are rounded."""

    def __init__(self, reach: WeightReach, weights: Dict[str, Tensor]) -> None:
        super().__init__([])
        self._of_detector, self.weights = [reach], weights  # in a list: it is no part of this one

    def of(self, name: str) -> Optional[Tensor]:
        return self._of_detector[0].of(name)

    def rounded(self, weight: Tensor, dtype: str, groups: Optional[int], name: str) -> Tensor:
        if name in self.weights:
            return self.weights[name]
        return self._of_detector[0].rounded(weight, dtype, groups, name)


class BlockRounding:
    """Learns the rounding of a calibrated detector's blocks.

    Args:
        model (nn.Module): The detector, with its weights rounded layer by layer.
        float_model (nn.Module): The same with the weights that were meant.
        forwards (Sequence[Callable]): Functions (detector) that run a batch of images each.
        iterations (int): Of learning, for each block.
    """

    def __init__(self, model: nn.Module, float_model: nn.Module,
                 forwards: Sequence[Callable[[nn.Module], Any]], iterations: int) -> None:
        self.model, self.float_model = model, float_model
        self.quant: Quantization = model.quant
        self.forwards, self.iterations = forwards, iterations

    def blocks(self, weights: Sequence[str]) -> List[Block]:
        """Blocks in the order in which a forward calls them.

        Args:
            weights (Sequence[str]): Names of parameters whose rounding may be learned.
        """
        calls: Dict[str, int] = {}

        def count(path: str) -> Callable:
            def hook(module: nn.Module, args: tuple) -> None:
                tracker = active_tracker()
                if tracker is not None and tracker.stack:
                    calls[path] = calls.get(path, 0) + 1
            return hook

        hooks = [module.register_forward_pre_hook(count(path))
                 for path, module in self.model.named_modules() if not f'{path}.'.startswith('quant.')]
        try:
            self.forwards[0](self.model)
        finally:
            for hook in hooks:
                hook.remove()
        found = list(_within('', self.model, calls, weights))
        return sorted(found, key=lambda block: list(calls).index(block.path))

    def learn(self, block: Block, meant: Dict[str, Tensor],
              reaches: Dict[str, Optional[Tensor]]) -> Optional[Errors]:
        """Learn a block's weights, in place; None if it cannot be repeated or does not err.

        Args:
            block (Block): Of :meth:`blocks`.
            meant (dict): Name of a weight -> as it was before it was rounded.
            reaches (dict): Its reach then.
        """
        parameters = dict(self.model.named_parameters())
        start = {name: parameters[name].detach().clone() for name in block.weights}
        calls = []
        for forward in self.forwards:
            call = self._recorded(block.path, forward)
            if call is None:
                return None
            calls.append(call)
        held_out = len(calls) // JUDGES
        seen, judging = calls[held_out:], calls[:held_out] or calls
        unit, before = (self._error(block.path, some, start) for some in (seen, judging))
        if not (unit > 0 and before > 0):
            return None
        soft = {name: SoftWeight(meant[name], reaches[name], start[name]) for name in block.weights}
        self._train(block.path, seen, soft, unit / len(seen))
        found = {name: each.hard() for name, each in soft.items()}
        after = self._error(block.path, judging, found)
        if after < before:
            with torch.no_grad():
                for name, weight in found.items():
                    parameters[name].copy_(weight)
        return Errors(min(after / before, 1.0), self._error(block.path, judging, {
            name: meant[name] for name in block.weights}) / before)

    @torch.enable_grad()
    def _train(self, path: str, calls: Sequence[Call], soft: Dict[str, SoftWeight],
               unit: float) -> None:
        choices = [each.choice for each in soft.values()]
        optimizer, count = torch.optim.Adam(choices, lr=RATE), sum(map(Tensor.numel, choices))
        for step in range(self.iterations):
            call = calls[step % len(calls)]
            outputs = self._outputs(path, call, {name: each.soft() for name, each in soft.items()})
            # In units of its error at the start, times the weights: as large as their regularizer.
            loss = _distance(outputs, call.target) / unit * count
            power = regularizer_power(step, self.iterations)
            if power is not None:
                loss = loss + WEIGHT * sum(
                    (1 - (2 * each.share - 1).abs().pow(power)).sum() for each in soft.values())
            if not loss.requires_grad:
                return  # the outputs do not follow from the weights
            for choice, gradient in zip(choices, torch.autograd.grad(loss, choices, allow_unused=True)):
                choice.grad = gradient
            optimizer.step()

    @torch.no_grad()
    def _error(self, path: str, calls: Sequence[Call], weights: Dict[str, Tensor]) -> float:
        return sum(_distance(self._outputs(path, call, weights), call.target).item() for call in calls)

    def _outputs(self, path: str, call: Call, weights: Dict[str, Tensor]) -> List[Tensor]:
        """What the block gives back with some weights as given, at the call's place."""
        known = self.quant.decisions_of(self.model)
        decisions = Decisions(known.tracker, known.plan, known.opened, known.quantizers,
                              _Rounding(self.quant.reach, weights))
        decisions.norms = known.norms
        mode = QuantMode(decisions, quantize_weights=True)
        mode.observes = False
        args, kwargs = map_tensors((call.args, call.kwargs), Tensor.clone)  # it may overwrite them
        with tracking(known.tracker), mode, recomputing_alike(known.tracker, mode):
            known.tracker.go_to(call.place)
            return _tensors(self.model.get_submodule(path).forward(*args, **kwargs))

    @torch.no_grad()
    def _recorded(self, path: str, forward: Callable[[nn.Module], Any]) -> Optional[Call]:
        """A block's call; None if it computes from more than its arguments, so cannot be repeated."""
        given: List[tuple] = []

        def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
            args, kwargs = map_tensors((args, kwargs), Tensor.clone)
            given.append((args, kwargs, active_tracker().place()))

        module = self.model.get_submodule(path)
        hook = module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            found = _result(module, forward, self.model)
        finally:
            hook.remove()
        call = Call(*given[0], _result(self.float_model.get_submodule(path), forward, self.float_model))
        return call if _same(self._outputs(path, call, {}), found) else None


def _result(module: nn.Module, forward: Callable[[nn.Module], Any], model: nn.Module) -> List[Tensor]:
    """What a module gives back in a forward of a detector, which ends there."""
    results: List[List[Tensor]] = []

    def keep(module: nn.Module, args: tuple, result: Any) -> None:
        results.append([tensor.clone() for tensor in _tensors(result)])
        raise _Reached

    hook = module.register_forward_hook(keep)
    try:
        forward(model)
    except _Reached:
        pass
    finally:
        hook.remove()
    return results[0]


def _within(path: str, module: nn.Module, calls: Dict[str, int],
            weights: Sequence[str]) -> Iterator[Block]:
    """The largest blocks in a module."""
    inside = [name for name in weights if name.startswith(f'{path}.' if path else '')]
    if len(inside) > 1 and len(inside) <= MOST and calls.get(path) == 1:
        yield Block(path, inside)
    elif len(inside) > 1:
        for name, child in module.named_children():
            yield from _within(f'{path}.{name}' if path else name, child, calls, weights)


def _tensors(value: Any) -> List[Tensor]:
    found: List[Tensor] = []
    map_tensors(value, found.append)
    return [tensor for tensor in found if tensor.is_floating_point()]


def _distance(found: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean squared error in variances of the target, summed over the tensors."""
    return sum((ours - theirs).float().square().mean() / theirs.float().var().clamp(min=1e-12)
               for ours, theirs in zip(found, target))


def _same(found: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    return len(found) == len(before) and all(
        ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        for ours, theirs in zip(found, before))


def round_blocks(model: nn.Module, float_model: nn.Module,
                 forwards: Sequence[Callable[[nn.Module], Any]], meant: Dict[str, Tensor],
                 reaches: Dict[str, Optional[Tensor]], iterations: int,
                 say: Callable[[str], None]) -> None:
    """Learn the rounding of all blocks, the first first, in place.

    Args:
        model (nn.Module), float_model (nn.Module), forwards (Sequence[Callable]), iterations (int): See
            :class:`BlockRounding`.
        meant (dict), reaches (dict): See :meth:`BlockRounding.learn`.
        say (Callable): Takes lines of progress.
    """
    model.quant.set_state(QuantState.QUANTIZE)
    float_model.quant.set_state(QuantState.OFF)
    rounding = BlockRounding(model, float_model, forwards, iterations)
    blocks = rounding.blocks(list(meant))
    for index, block in enumerate(blocks):
        errors = rounding.learn(block, meant, reaches)
        what = 'left as layer by layer: it cannot be run alone, or does not err' if errors is None else \
            f'{errors.left:.3f} of the error layer by layer, {errors.without:.3f} with float weights'
        say(f'rounding: block {index + 1} of {len(blocks)}, {block.path}: {what}')
