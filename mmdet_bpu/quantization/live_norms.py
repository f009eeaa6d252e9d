"""Batch norms that stay live inside their folded convolutions while QAT trains.

    live    z = conv(x, Q(w f) / s),   y = gamma (z - mean(z)) / sqrt(var(z) + eps) + beta
    folded                             y = conv(x, Q(w f)) + beta - running_mean s

with s = gamma / sqrt(running_var + eps) and f = s / unit. What is quantized is the folded weight
``w f`` in both (Krishnamoorthi, arXiv:1806.08342, section 3.2.2); evaluation, and training once a
norm is folded, compute the second line. ``unit`` is s where the norm begins: f begins at exactly 1,
and the convolution's parameter goes on with the folded weight that was calibrated.
"""
from typing import Any, Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_bpu.models.plain_norms import PlainNorm
from mmdet_bpu.program.weight_layout import channels_exchanged

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
"""Behind which a norm can be live."""
SMALLEST = 1e-6
"""Of s over what it was at the beginning: a weight times less is not quantized."""
_NORMALISED_BY = 'normalised_by'


class LiveNorm(PlainNorm):
    """The norm of a folded convolution, in the place where the stock detector has it.

    Either its convolution holds all (``is_live`` False) and it hands on what it is given, or the
    convolution's weight is to be scaled, its bias is 0, and this norm does the rest: inside the
    convolution's site where that is quantized, else here.

    Args:
        num_features (int): Channels (O).
        eps (float): See torch.
        momentum (float | None): See torch.

    Attributes:
        unit (Tensor): float32 (O, ) buffer.
        live (Tensor): bool (1, ) buffer, for checkpoints.
        is_live (bool): The same.
    """

    def __init__(self, num_features: int, eps: float, momentum: Optional[float]) -> None:
        super().__init__(num_features, eps, momentum)
        self.register_buffer('unit', torch.ones(num_features))
        self.register_buffer('live', torch.zeros(1, dtype=torch.bool))
        self.is_live = False

    @classmethod
    def of(cls, norm: nn.Module, conv: nn.Module) -> 'LiveNorm':
        """A stock norm behind ``conv``, neither folded; the convolution's bias is taken in."""
        momentum = getattr(norm, 'momentum', 0.0)  # mmdet's frozen norm has none
        twin = cls(norm.num_features, norm.eps, momentum).to(norm.running_var)
        bias = getattr(conv, 'bias', None)
        with torch.no_grad():
            twin.running_mean.copy_(norm.running_mean - (0 if bias is None else bias))
            twin.running_var.copy_(norm.running_var)
            for name, parameter in twin.named_parameters():
                stock = getattr(norm, name)
                parameter.requires_grad = stock is not None and stock.requires_grad
                if stock is not None:
                    parameter.copy_(stock)
        return twin.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, O, H, W), what the convolution gave."""
        if not self.is_live or getattr(x, _NORMALISED_BY, None) is self:
            return x
        return self.normalised(x / self.unit.view(1, -1, 1, 1))

    def normalised(self, z: Tensor, counts: bool = True) -> Tensor:
        """``z`` normalised as torch does it; training keeps its statistics, if it ``counts``."""
        if counts or not self.training:
            return super().forward(z)
        # Calls that run again must save as many tensors for their backward pass as they did.
        return F.batch_norm(z, self.running_mean.clone(), self.running_var.clone(), self.weight,
                            self.bias, True, 0.0, self.eps)

    def mark(self, y: Tensor) -> Tensor:
        """Say of a convolution's result that it is normalised."""
        setattr(y, _NORMALISED_BY, self)
        return y

    def factor(self) -> Tensor:
        """s, (O, )."""
        return self.weight / torch.sqrt(self.running_var + self.eps)

    def folded_weight(self, weight: Tensor, factor: Tensor, groups: Optional[int]) -> Tensor:
        """``w f``.

        Args:
            weight (Tensor): w.
            factor (Tensor): s.
            groups (int, optional): Of a transposed convolution.
        """
        return per_channel(weight, factor / self.unit, groups)

    def folded_bias(self, factor: Tensor) -> Tensor:
        """``beta - running_mean s``, (O, )."""
        return self.bias - self.running_mean * factor

    def unfolded(self, rounded: Tensor, weight: Tensor, factor: Tensor,
                 groups: Optional[int]) -> Tensor:
        """``Q(w f) / s``; w itself where s is next to 0: there all of ``w f`` may be rounded away.

        Args:
            rounded (Tensor): ``Q(w f)``.
            weight (Tensor), factor (Tensor), groups (int, optional): See :meth:`folded_weight`.
        """
        usable = (factor / self.unit).abs() > SMALLEST
        inverse = torch.where(usable, 1 / torch.where(usable, factor, 1.0), 0.0)
        bare = torch.where(usable, 0.0, 1 / self.unit)
        return per_channel(rounded, inverse, groups) + per_channel(weight, bare, groups)

    def set_live(self, live: bool) -> None:
        """Be live, or not; weights are the caller's."""
        self.live.fill_(live)
        self.is_live = live

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.is_live = bool(self.live)


def per_channel(weight: Tensor, factor: Tensor, groups: Optional[int]) -> Tensor:
    """A convolution's weight times a factor of each output channel, (O, ).

    Args:
        weight (Tensor): (O, C / groups, KH, KW); with ``groups`` (C, O / groups, KH, KW).
        factor (Tensor): (O, ).
        groups (int, optional): Of a transposed convolution.
    """
    if groups is None:
        return weight * factor.view(-1, 1, 1, 1)
    return channels_exchanged(channels_exchanged(weight, groups) * factor.view(-1, 1, 1, 1), groups)


def transposed_groups(conv: nn.Module) -> Optional[int]:
    """Groups of a transposed convolution; None of another."""
    return conv.groups if isinstance(conv, nn.ConvTranspose2d) else None


@torch.no_grad()
def unfold(conv: nn.Module, norm: LiveNorm) -> None:
    """Take the norm out of a folded convolution, which computes what it did.

    Channels whose gamma squared is below eps give next to nothing, and a step of their weights would
    be large beside them. They are counted in units of their folded weight, where eps is what they
    are divided by.
    """
    factor = norm.factor()
    faint = norm.weight.square() < norm.eps
    for statistics, scaled in ((norm.running_mean, factor), (norm.running_var, factor.square())):
        statistics.copy_(torch.where(faint, statistics * scaled, statistics))
    norm.weight.copy_(torch.where(faint, torch.sqrt(norm.running_var + norm.eps), norm.weight))
    factor = norm.factor()
    norm.unit.copy_(factor)
    norm.bias.copy_(conv.bias + norm.running_mean * factor)
    conv.bias.zero_()
    norm.set_live(True)


@torch.no_grad()
def fold(conv: nn.Module, norm: LiveNorm) -> None:
    """Put the norm into its convolution, with the weight and bias that evaluation has had."""
    factor = norm.factor()
    conv.weight.copy_(norm.folded_weight(conv.weight, factor, transposed_groups(conv)))
    conv.bias.copy_(norm.folded_bias(factor))
    norm.set_live(False)


def norms_inside(detector: nn.Module) -> Iterator[Tuple[str, nn.Module, LiveNorm]]:
    """(path, convolution, norm) of those that are live or have been, in the network's order."""
    for conv_path, norm_path in detector.quant.folded if hasattr(detector, 'quant') else ():
        norm = detector.get_submodule(norm_path)
        if isinstance(norm, LiveNorm):
            yield conv_path, detector.get_submodule(conv_path), norm


def idle_parameters(detector: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that train and that a training step does not use: a bias, or a folded norm's."""
    for _, conv, norm in norms_inside(detector):
        for parameter in (conv.bias, ) if norm.is_live else (norm.weight, norm.bias):
            if parameter.requires_grad:
                yield parameter
