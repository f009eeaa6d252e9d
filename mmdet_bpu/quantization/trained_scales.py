"""Fake quantizers whose scale moves while QAT trains: learned by gradient, or following the values.

A step of an optimizer is as large as its rate, whatever the gradient, and scales span many powers of
two. So what is trained of a scale ``s`` is a step ``p`` of its logarithm, 0 whenever a forward
begins::

    q = clamp(round(x / (s * exp(p)))) * s * exp(p)     forward: p = 0
    s <- s * exp(p); p <- 0                             after each step of the optimizer

The scale stays positive, ``p`` needs no place in a checkpoint, and the optimizer's moments are those of
relative changes. Only int8 moves: rounding to int16 is 256 times finer and costs nothing to speak of,
and what softmax, norms and sampling hold inside stays one compiled function.
"""
from typing import Any, Iterator, List, Mapping, Optional, Union

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import LARGEST_SCALE, SMALLEST_SCALE
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization.fake_quant import QUANTIZERS, FakeQuantizer
from mmdet_bpu.quantization.learned_grid import LearnedOnGrid, WithoutSteps, number_from, take
from mmdet_bpu.quantization.observers import DEFAULT_OBSERVER
from mmdet_bpu.quantization.statistics import reduced

FIXED = 'fixed'
MOVES = ('int8', )
DECIDED = ('dtype', 'observer', 'scale')
"""What a fake quantizer is built with that ``bpu.qat.scales`` has no say in."""


class TrainedScale(FakeQuantizer):
    """A fake quantizer whose scale moves in training.

    Attributes:
        moving (bool): Whether it moves now; whoever trains says so. It does not where no gradients
            are asked for.
    """

    def __init__(self, dtype: str, observer=DEFAULT_OBSERVER, scale=None) -> None:
        super().__init__(dtype, observer, scale)
        self.moving = False

    @property
    def rounds_alone(self) -> bool:
        return type(self) in (LearnedScale, FollowingScale) and not self._moves

    @property
    def _moves(self) -> bool:
        return self.moving and torch.is_grad_enabled()


@QUANTIZERS.register_module('learned')
class LearnedScale(WithoutSteps, TrainedScale):
    """LSQ: the scale is learned with the weights.

    Args:
        dtype (str): ``int8``.
        observer (str | dict): Of calibration, which it begins at.
        scale (float, optional): See :class:`FakeQuantizer`.
        lr_mult (float): Rate of the scale's logarithm over that of the weights. Defaults to 10.

    Attributes:
        step (Parameter): float32 (1, ); 0 but between an optimizer's step and :func:`take_steps`.
    """

    def __init__(self, dtype: str, observer=DEFAULT_OBSERVER, scale=None,
                 lr_mult: float = 10.0) -> None:
        super().__init__(dtype, observer, scale)
        self.lr_mult = number_from(lr_mult, 'lr_mult', 0.0)
        self.step = nn.Parameter(torch.zeros(1))

    def _rounded(self, x: Tensor, owned: bool = False, factor: float = 1.0,
                 rectified: bool = False) -> Tensor:
        if not self._moves:
            return super()._rounded(x, owned, factor, rectified)
        x = torch.relu(x.float()) if rectified else x.float()
        return LearnedOnGrid.apply(x, self.step, self.scale * factor, *integer_range(self.dtype))


@QUANTIZERS.register_module('following')
class FollowingScale(TrainedScale):
    """The scale is a moving average of what the observer finds in each batch.

    Args:
        dtype (str): ``int8``.
        observer (str | dict): Of calibration and of each batch.
        scale (float, optional): See :class:`FakeQuantizer`.
        constant (float): Weight of a batch, above 0 and up to 1. Defaults to 0.01.
    """

    def __init__(self, dtype: str, observer=DEFAULT_OBSERVER, scale=None,
                 constant: float = 0.01) -> None:
        super().__init__(dtype, observer, scale)
        self.constant = number_from(constant, 'constant', 0.0)
        if not 0 < self.constant <= 1:
            raise BpuError(f'constant: expected a number above 0 and up to 1, found {constant!r}')

    def forward(self, x: Tensor, owned: bool = False) -> Tensor:
        if self.follows:
            self.observer.observe(x.detach())
        return super().forward(x, owned)

    @property
    def follows(self) -> bool:
        return self._moves and self.state.quantizes and not self.state.observes

    @property
    def _moves(self) -> bool:
        # Activation checkpointing runs first without gradients, then again without observing.
        return self.moving and (self.training or torch.is_grad_enabled())


def build_quantizer(config: Union[str, Mapping[str, Any]], dtype: str, observer: Union[str, dict],
                    scale: Optional[float] = None) -> FakeQuantizer:
    """A fake quantizer of a tensor.

    Args:
        config (str | dict): ``bpu.qat.scales``. What moves is int8 of no fixed scale; the rest is fixed.
        dtype (str): ``int8``, ``int16`` or ``int32``.
        observer (str | dict): How its scale is found.
        scale (float, optional): A fixed scale.
    """
    if dtype not in MOVES or scale is not None:
        return FakeQuantizer(dtype, observer, scale)
    config = dict(type=config) if isinstance(config, str) else dict(config)
    return QUANTIZERS.build(dict(config, dtype=dtype, observer=observer))


def kind_of(config: Union[str, Mapping[str, Any]]) -> Any:
    """Name of the kind of fake quantizer that ``bpu.qat.scales`` names."""
    return config.get('type') if isinstance(config, Mapping) else config


def check_quantizer(config: Any, where: str) -> None:
    """Build a fake quantizer as a prepared model will.

    Args:
        config (Any): What a config has for ``bpu.qat.scales``.
        where (str): The config's field, for the message.

    Raises:
        BpuError: It is no name or config of a registered kind, or that refuses its arguments.
    """
    kind = kind_of(config)
    if not isinstance(kind, str) or QUANTIZERS.get(kind) is None:
        raise BpuError(f'field {where}: expected one of '
                       f'{", ".join(map(repr, sorted(QUANTIZERS.module_dict)))}, or a dict with one of '
                       f'them as its type, found {config!r}')
    given = [name for name in DECIDED if isinstance(config, Mapping) and name in config]
    if given:
        raise BpuError(f'field {where}: {kind} takes no {", ".join(given)}, which rules decide for each '
                       'tensor (bpu.qconfig) and bpu.calibration for all')
    try:
        build_quantizer(config, MOVES[0], DEFAULT_OBSERVER)
    except Exception as error:  # a kind of a user refuses its arguments in its own way
        words = ' '.join(str(error).split())
        raise BpuError(f'field {where}: {kind} refuses its arguments: {words}') from error


def trained_scales(quant: nn.Module) -> List[TrainedScale]:
    """Fake quantizers of a detector's quantization whose scale can move."""
    return [each for each in quant.quantizers.values() if isinstance(each, TrainedScale)]


def learned_scales(quant: nn.Module) -> List[LearnedScale]:
    """Those of them whose scale is learned."""
    return [each for each in trained_scales(quant) if isinstance(each, LearnedScale)]


def move_scales(quant: nn.Module, moving: bool) -> None:
    """Let scales move in the steps that come, or stay."""
    for each in trained_scales(quant):
        each.moving = moving
    quant.reach.moving = moving


def steps_of(quant: nn.Module) -> Iterator[nn.Parameter]:
    """What an optimizer trains of learned scales, of activations and of weights."""
    yield from (each.step for each in learned_scales(quant))
    yield from quant.reach.steps()


@torch.no_grad()
def take_steps(quant: nn.Module) -> None:
    """Move the scales as a training step, which has ended, says; on all ranks alike.

    Scales that stay forget what an optimizer's momentum would still do to them.
    """
    learned = learned_scales(quant)
    take([each.scale for each in learned], [each.step.data for each in learned], SMALLEST_SCALE,
         LARGEST_SCALE, any(each.moving for each in learned))
    _follow([each for each in trained_scales(quant) if isinstance(each, FollowingScale)])
    quant.reach.take_steps()


def _follow(following: List[FollowingScale]) -> None:
    """Towards the mean over the ranks of what their observers found."""
    if not following or not following[0].moving:
        return
    found = [each.observer.scale(integer_range(each.dtype)) for each in following]
    sums = torch.tensor([[0.0 if scale is None else scale for scale in found],
                         [scale is not None for scale in found]], dtype=torch.float64,
                        device=following[0].scale.device)
    reduced(sums, dist.ReduceOp.SUM)
    for each, total, ranks in zip(following, *sums.tolist()):
        if ranks:
            each.scale.lerp_(torch.full_like(each.scale, total / ranks), each.constant)
        each.observer.reset()
