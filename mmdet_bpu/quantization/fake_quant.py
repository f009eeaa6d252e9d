"""Fake quantizers: symmetric, zero point 0, ties to even; activations per tensor."""
from enum import Enum
from math import inf
from typing import Optional, Union

import torch
import torch.distributed as dist
from mmengine.registry import Registry
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import constant_scale, weight_scale
from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.weight_layout import channels_exchanged
from mmdet_bpu.quantization import fake_quant_cpu
from mmdet_bpu.quantization.observers import (DEFAULT_OBSERVER, Observer, build_observer,
                                              statistics_of)
from mmdet_bpu.quantization.observers_cpu import Tally
from mmdet_bpu.quantization.statistics import Statistics, reduced


class QuantState(str, Enum):
    """What fake quantizers do."""

    OFF = 'off'
    OBSERVE = 'observe'
    QUANTIZE = 'quantize'
    BOTH = 'both'

    @classmethod
    def of(cls, state: Union[str, 'QuantState']) -> 'QuantState':
        """The state of that name.

        Raises:
            BpuError: There is none.
        """
        try:
            return cls(state)
        except ValueError:
            raise BpuError(f'unknown state of fake quantizers {state!r}: expected one of '
                           f'{", ".join(each.value for each in cls)}') from None

    @property
    def observes(self) -> bool:
        """Whether statistics are taken."""
        return self in (QuantState.OBSERVE, QuantState.BOTH)

    @property
    def quantizes(self) -> bool:
        """Whether values are rounded."""
        return self in (QuantState.QUANTIZE, QuantState.BOTH)


class _OnGrid(torch.autograd.Function):
    """``clamp(round(x / scale)) * scale``; the gradient passes where nothing saturates.

    torch's own fake quantize kernels multiply by ``1 / scale``, which moves ties, and take ten
    times as long on a CPU (measured on (8, 134, 256): 2.0 ms against 0.2 ms, both directions).
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        rounded = torch.div(x, scale).round_()
        clamped = rounded.clamp(low, high)
        ctx.range = low, high
        # A mask needs a quarter of the memory, but masks are slow on a CPU.
        ctx.save_for_backward(rounded if x.device.type == 'cpu' else rounded == clamped)
        return clamped.mul_(scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        saved, = ctx.saved_tensors
        if saved.dtype == torch.bool:
            return gradient * saved, None, None, None
        low, high = ctx.range
        inside = torch.ops.aten.hardtanh_backward(gradient, saved, low - 0.5, high + 0.5)
        return inside, None, None, None


class _OnGridInOnePass(torch.autograd.Function):
    """The same by a compiled loop, which keeps a bit an element."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float, low: int, high: int, floor: float,
                owned: bool) -> Tensor:
        out = x.detach() if owned else None
        rounded, ctx.stopped = fake_quant_cpu.rounded_and_marked(x, scale, low, high, floor, out)
        return rounded

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        if ctx.stopped is not None:
            differentiable = torch.is_grad_enabled()
            gradient = gradient * ctx.stopped.mask() if differentiable else \
                ctx.stopped.kept(gradient)
        return gradient, None, None, None, None, None


def _on_grid(x: Tensor, scale: Tensor, dtype: str, owned: bool = False,
             rectified: bool = False) -> Tensor:
    low, high = integer_range(dtype)
    x = x.float()  # autocast leaves what follows in float32
    trained = x.requires_grad and torch.is_grad_enabled()
    if compiled_loops.usable() and compiled_loops.fits(x):
        low, floor = (0, 0.0) if rectified else (low, -inf)
        if trained:
            return _OnGridInOnePass.apply(x, scale.item(), low, high, floor, owned)
        return fake_quant_cpu.rounded(x, scale.item(), low, high, x if owned else None)
    if rectified:
        x = torch.relu(x)
    if trained:
        return _OnGrid.apply(x, scale, low, high)
    return torch.div(x, scale).round_().clamp_(low, high).mul_(scale)


def fake_quantize(x: Tensor, scale: Tensor, dtype: str, owned: bool = False,
                  rectified: bool = False) -> Tensor:
    """``clamp(round(x / scale)) * scale`` with a straight-through gradient inside the range.

    Infinite values become the ends of the range, NaN stays.

    Args:
        x (Tensor): Any shape; computed in float32, also under AMP.
        scale (Tensor): float32 of one element.
        dtype (str): ``int8`` or ``int16``.
        owned (bool): Nobody else reads the memory of ``x``, nor does a backward pass: it may be
            overwritten. Defaults to False.
        rectified (bool): Of ``relu(x)``. Defaults to False.
    """
    return _on_grid(x, scale.detach(), dtype, owned, rectified)


class _WeightOnGrid(torch.autograd.Function):
    """A weight on its grid, which reaches to its largest magnitude: nothing saturates."""

    @staticmethod
    def forward(ctx, weight: Tensor, dtype: str) -> Tensor:
        return _rounded_weight(weight, dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        return gradient, None


def _rounded_weight(weight: Tensor, dtype: str) -> Tensor:
    weight = weight.detach().float()
    if compiled_loops.usable() and weight.device.type == 'cpu' and weight.is_contiguous():
        return fake_quant_cpu.rounded_weight(weight, integer_range(dtype)[1])
    scale = weight_scale(weight, dtype).view(-1, *(1, ) * (weight.dim() - 1))
    return torch.div(weight, scale).round_().clamp_(*integer_range(dtype)).mul_(scale)


def fake_quantize_weight(weight: Tensor, dtype: str = 'int8', groups: Optional[int] = None,
                         reach: Optional[Tensor] = None) -> Tensor:
    """Weights on their grid, the scale computed from the weights as they are now.

    Args:
        weight (Tensor): Output channels first; with ``groups`` (C, O / groups, KH, KW).
        dtype (str): ``int8`` or ``int16``.
        groups (int, optional): Of a transposed convolution.
        reach (Tensor, optional): Share of its largest magnitude that the integers of each channel
            reach to, float32 (O, ). What lies beyond saturates and has no gradient.
    """
    if groups is not None:
        weight = channels_exchanged(weight, groups)
        return channels_exchanged(fake_quantize_weight(weight, dtype, reach=reach), groups)
    if reach is not None:
        weight = weight.float()
        scale = weight_scale(weight, dtype, reach).view(-1, *(1, ) * (weight.dim() - 1))
        return _OnGrid.apply(weight, scale, *integer_range(dtype))
    return _WeightOnGrid.apply(weight.float(), dtype)


def fake_quantize_constant(x: Tensor, dtype: str) -> Tensor:
    """A constant operand on its grid; infinities saturate."""
    return fake_quantize(x, constant_scale(x, dtype), dtype)


# Detectors run in mmdet's scope, where names are looked up.
QUANTIZERS = Registry('bpu fake quantizer', scope='mmdet')
"""By what becomes of their scale in training."""


@QUANTIZERS.register_module('fixed')
class FakeQuantizer(nn.Module):
    """Quantizes the activations of one group of tensors that share a scale.

    Args:
        dtype (str): ``int8``, ``int16``, or ``int32`` (an accumulator: never rounded).
        observer (str | dict): How the scale is found. Defaults to
            :data:`DEFAULT_OBSERVER`.
        scale (float, optional): A fixed scale; no observer then.

    Attributes:
        scale (Tensor): float32 ``(1,)`` buffer.
        calibrated (Tensor): bool ``(1,)`` buffer.
        seen (Tensor): int32 ``(1,)``; 1 if the last calibration observed anything.
        seen_nan (Tensor): int32 ``(1,)``; 1 if NaN was in it.
    """

    def __init__(self, dtype: str, observer=DEFAULT_OBSERVER, scale=None) -> None:
        super().__init__()
        self.dtype = dtype
        self.state = QuantState.OFF
        self.fixed = scale is not None
        self.register_buffer('scale', torch.tensor([1.0 if scale is None else float(scale)]))
        self.register_buffer('calibrated', torch.tensor([self.fixed]))
        # Of what was observed: whether there was NaN, and whether there was anything at all.
        self.register_buffer('seen_nan', torch.zeros(1, dtype=torch.int32), persistent=False)
        self.register_buffer('seen', torch.zeros(1, dtype=torch.int32), persistent=False)
        self.observer: Observer = build_observer(observer)

    def forward(self, x: Tensor, owned: bool = False) -> Tensor:
        """Observe and/or quantize ``x`` of any shape, according to the state.

        Args:
            owned (bool): See :func:`fake_quantize`. Defaults to False.
        """
        if self.state.observes:
            self._observe(x.detach())
        if self.state.quantizes and self.dtype != 'int32':
            return self._rounded(x, owned)
        return x

    def _rounded(self, x: Tensor, owned: bool = False, factor: float = 1.0,
                 rectified: bool = False) -> Tensor:
        """``x`` on the grid of ``factor`` scales; see :func:`fake_quantize`."""
        scale = self.scale if factor == 1.0 else self.scale * factor
        return fake_quantize(x, scale, self.dtype, owned, rectified)

    @property
    def rounds_alone(self) -> bool:
        """Whether quantizing is to round on the scale and nothing else, so that other code may do it."""
        return type(self) is FakeQuantizer

    @property
    def follows(self) -> bool:
        """Whether :meth:`forward` is to see what comes though nothing is calibrated."""
        return False

    def _observe(self, x: Tensor) -> None:
        nan = self.observer.observe(x)
        if nan is None:  # an observer of a user need not say
            nan = torch.isnan(x).any()
        self._note(x.numel() > 0, nan)

    def _note(self, seen: bool, nan: Union[bool, Tensor]) -> None:
        self.seen |= int(seen)
        self.seen_nan |= nan.to(self.seen_nan) if isinstance(nan, Tensor) else int(nan)

    def tally(self, parts: int) -> Optional[Tally]:
        """Room in which compiled loops count what :meth:`forward` would observe.

        None if the observer does not count as they do.
        """
        statistics = self.statistics
        return None if statistics is None else Tally(parts, *statistics.arrays)

    def finish(self, tally: Tally) -> None:
        """Take in what was counted in a :meth:`tally`."""
        self._note(True, tally.finish())

    def on_grid(self, x: Tensor, owned: bool = False, factor: float = 1.0) -> Tensor:
        """``x`` rounded to this quantizer's integers, in units of ``factor`` scales; no observing."""
        if self.dtype == 'int32':
            return x
        return self._rounded(x, owned, factor)

    def rectified(self, x: Tensor, owned: bool = False) -> Tensor:
        """``relu(x)`` rounded; no observing."""
        if self.dtype == 'int32':
            return torch.relu(x)
        return self._rounded(x, owned, rectified=True)

    @property
    def statistics(self) -> Optional[Statistics]:
        """What the observer counts, if it is one that reads :class:`Statistics`."""
        return statistics_of(self.observer)

    @torch.no_grad()
    def reduce(self) -> None:
        """Combine what was observed on all ranks; every rank ends with the same."""
        for flag in (self.seen, self.seen_nan):
            reduced(flag, dist.ReduceOp.MAX)
        self.observer.reduce()

    @torch.no_grad()
    def take_scale(self) -> None:
        """Take the scale from the observer, which forgets; not where it is fixed, or not needed."""
        scale = None
        if not self.fixed and self.dtype != 'int32':
            scale = self.observer.scale(integer_range(self.dtype))
        if scale is not None:
            self.scale.fill_(scale)
            self.calibrated.fill_(True)
        self.observer.reset()

    def finish_calibration(self) -> None:
        """Take the scale from the observer, reduced across ranks."""
        self.reduce()
        self.take_scale()

    def extra_repr(self) -> str:
        return f'{self.dtype}, scale={self.scale.item():.6g}, calibrated={bool(self.calibrated)}'
