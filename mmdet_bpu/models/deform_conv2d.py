"""Deformable convolution as one torch function: what mmcv's compiled ops compute.

    y(n, o, p) = bias(o) + sum over taps k and channels c of
                 weight(o, c, k) * mask(n, g, k, p) * x(n, c, position(n, g, k, p))
    position(n, g, k, p) = p * stride - padding + k * dilation + offset(n, g, k, p)

with p, k and positions as (y, x), g the offset group of channel c, x bilinear between pixels and
zero outside the image (Dai et al., "Deformable Convolutional Networks", arXiv:1703.06211; the mask
is that of Zhu et al., "Deformable ConvNets v2", arXiv:1811.11168).
"""
from dataclasses import dataclass
from typing import Iterable, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair
from torch.overrides import wrap_torch_function

from mmdet_bpu.errors import BpuError

Pair = Tuple[int, int]
# Lies outside any image, and so do both pixels next to it.
OUTSIDE = -2.0


@dataclass(frozen=True)
class Window:
    """Geometry of a deformable convolution; pairs are (height, width), in px."""
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    offset_groups: int

    def output_size(self, size: Iterable[int]) -> Pair:
        """(OH, OW) for an image of ``size`` (H, W)."""
        return tuple((s + 2 * p - d * (k - 1) - 1) // step + 1 for s, p, d, k, step in zip(
            size, self.padding, self.dilation, self.kernel, self.stride))

    def anchors(self, axis: int, count: int, like: Tensor) -> Tensor:
        """Positions without offsets along an axis, ``(kernel, count)``."""
        taps = torch.arange(self.kernel[axis], dtype=like.dtype, device=like.device)
        outputs = torch.arange(count, dtype=like.dtype, device=like.device)
        return taps[:, None] * self.dilation[axis] \
            + outputs * self.stride[axis] - self.padding[axis]

    def check(self, input: Tensor, offset: Tensor, weight: Tensor, mask: Optional[Tensor]) -> None:
        """Check the shapes of the operands against each other.

        Raises:
            BpuError: One does not follow from the others.
        """
        if input.dim() != 4 or input.shape[1] != weight.shape[1] * self.groups \
                or weight.shape[0] % self.groups or input.shape[1] % self.offset_groups:
            raise BpuError(
                f'deform_conv2d: a weight of shape {tuple(weight.shape)} with {self.groups} groups '
                f'and {self.offset_groups} offset groups does not fit an input of shape '
                f'{tuple(input.shape)}')
        size = self.output_size(input.shape[2:])
        if min(size) < 1:
            raise BpuError(f'deform_conv2d: an input of shape {tuple(input.shape)} is too small '
                           f'for a window of {self.kernel} px')
        maps = self.offset_groups * self.kernel[0] * self.kernel[1]
        for name, tensor, channels in (('offset', offset, 2 * maps), ('mask', mask, maps)):
            expected = (input.shape[0], channels, *size)
            if tensor is not None and tuple(tensor.shape) != expected:
                raise BpuError(f'deform_conv2d: expected {name} of shape {expected}, '
                               f'found {tuple(tensor.shape)}')


def _overridable(input: Tensor, offset: Tensor, weight: Tensor, mask: Optional[Tensor] = None,
                 bias: Optional[Tensor] = None, **_: object) -> Tuple[Optional[Tensor], ...]:
    return input, offset, weight, mask, bias


@wrap_torch_function(_overridable)
def deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, mask: Optional[Tensor] = None,
                  bias: Optional[Tensor] = None, *, stride: Union[int, Pair],
                  padding: Union[int, Pair], dilation: Union[int, Pair], groups: int,
                  offset_groups: int) -> Tensor:
    """Deformable convolution, v2 with ``mask`` and v1 without.

    A ``TorchFunctionMode`` sees it as one call, as it sees a function of ``torch``. All runs in
    ``offset``'s dtype, as in mmcv, except that positions are float32 at least; autocast does not
    reach inside. At and beyond -1 and the image's size a sample and its derivatives are 0.

    Forward makes the samples of all taps, ``N * OH * OW * KH * KW * C`` elements, in one piece and
    keeps none; backward makes them again beside their gradients. Differentiable once.

    Args:
        input (Tensor): ``(N, C, H, W)``.
        offset (Tensor): ``(N, offset_groups * KH * KW * 2, OH, OW)`` in px, y before x.
        weight (Tensor): ``(O, C / groups, KH, KW)``.
        mask (Tensor, optional): ``(N, offset_groups * KH * KW, OH, OW)``, factors of the samples.
        bias (Tensor, optional): ``(O, )``.
        stride (int or tuple): Of the window, (height, width).
        padding (int or tuple): Zeros on both sides, (height, width).
        dilation (int or tuple): Distance of the taps, (height, width).
        groups (int): Groups of the product.
        offset_groups (int): Groups of channels that share their offsets.

    Returns:
        Tensor: ``(N, O, OH, OW)``, contiguous.

    Raises:
        BpuError: An operand's shape does not follow from the others.
    """
    window = Window(tuple(weight.shape[2:]), _pair(stride), _pair(padding), _pair(dilation), groups,
                    offset_groups)
    window.check(input, offset, weight, mask)
    operands = (None if t is None else t.to(offset.dtype)
                for t in (input, offset, weight, mask, bias))
    return _DeformConv2d.apply(window, *operands)


class _DeformConv2d(torch.autograd.Function):
    """Keeps the operands only; in a graph of autograd's own the samples would stay."""

    @staticmethod
    def forward(ctx, window: Window, *operands: Optional[Tensor]) -> Tensor:
        ctx.window = window
        ctx.save_for_backward(*operands)
        with torch.autocast(operands[0].device.type, enabled=False):
            output = _convolve(window, *operands)
        # A view that a custom function returns may not be changed in place, which ReLU does.
        return output.clone() if output._is_view() else output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tuple[Optional[Tensor], ...]:
        needed = ctx.needs_input_grad[1:]
        operands = [None if t is None else t.detach().requires_grad_(need)
                    for t, need in zip(ctx.saved_tensors, needed)]
        leaves = [t for t, need in zip(operands, needed) if need]
        with torch.autocast(gradient.device.type, enabled=False):
            with torch.enable_grad():
                output = _convolve(ctx.window, *operands)
            gradients = iter(torch.autograd.grad(output, leaves, gradient))
        return None, *(next(gradients) if need else None for need in needed)


def _convolve(window: Window, input: Tensor, offset: Tensor, weight: Tensor,
              mask: Optional[Tensor], bias: Optional[Tensor]) -> Tensor:
    groups = window.groups
    samples = _sample(window, input, offset, mask).unflatten(-1, (groups, -1))
    # (N, groups, OH * OW, taps * C / groups); a copy only where there are groups.
    samples = samples.permute(0, 3, 1, 2, 4).flatten(3)
    kernel = weight.flatten(2).transpose(1, 2).reshape(groups, -1, samples.shape[-1])
    output = kernel @ samples.transpose(-1, -2)
    output = output.reshape(len(input), len(weight), *offset.shape[2:])
    return output if bias is None else output + bias[:, None, None]


def _sample(window: Window, input: Tensor, offset: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Samples of all taps times their mask, ``(N, OH * OW, taps, C)``.

    One bag of ``embedding_bag`` is the weighted sum of the four pixels around a position. It does
    not keep the pixels apart, which autograd would of gathers, and its positions are exact, which
    those of ``grid_sample`` are not: it wants them divided by the image's size.
    """
    batch, channels, height, width = input.shape
    groups = window.offset_groups
    shifts = offset.to(torch.promote_types(offset.dtype, torch.float32))
    shifts = shifts.unflatten(1, (groups, *window.kernel, 2))
    y = shifts[:, :, :, :, 0] + window.anchors(0, offset.shape[2], shifts)[:, None, :, None]
    x = shifts[:, :, :, :, 1] + window.anchors(1, offset.shape[3], shifts)[:, None, :]
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    rows, row_weights = _neighbours(torch.where(inside, y, OUTSIDE), height)
    columns, column_weights = _neighbours(torch.where(inside, x, OUTSIDE), width)
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    if mask is not None:
        weights = weights * mask.unflatten(1, (groups, *window.kernel))[..., None, None]
    images = torch.arange(batch * groups, dtype=torch.int32, device=input.device)
    rows = rows + images.view(batch, groups, 1, 1, 1, 1, 1) * height
    pixels = rows[..., :, None] * width + columns[..., None, :]

    def bags(corners: Tensor) -> Tensor:
        """``(N, groups, KH, KW, OH, OW, 2, 2)`` to one row per sample, in the result's order."""
        return corners.permute(0, 4, 5, 2, 3, 1, 6, 7).reshape(-1, 4)

    table = input.reshape(batch, groups, -1, height * width).transpose(2, 3).flatten(0, 2)
    samples = F.embedding_bag(bags(pixels), table, mode='sum',
                              per_sample_weights=bags(weights).to(table.dtype))
    return samples.view(batch, -1, window.kernel[0] * window.kernel[1], channels)


def _neighbours(position: Tensor, size: int) -> Tuple[Tensor, Tensor]:
    """Indices (int32) and weights of the pixels below and above ``position``, ``(..., 2)``.

    Indices are clamped into the image; the weight of a pixel outside is 0.
    """
    below = position.detach().floor()
    above_weight = position - below
    weights = torch.stack((1 - above_weight, above_weight), -1)
    indices = torch.stack((below, below + 1), -1).to(torch.int32)
    outside = (indices < 0) | (indices >= size)
    return indices.clamp_(0, size - 1), weights.masked_fill(outside, 0.0)
