"""Float meaning of the ``hbir`` operations that resample feature maps, channels last.

What the manual leaves open is fixed here: result i of ``hbir.resize2d`` reads position
``initialOffset + i * step`` px from the centre of the first pixel (inside the image, or moved to
its edge); ``nearest`` takes the pixel at or before it, ``bilinear`` weighs that one and the next.
"""
import math
from fractions import Fraction
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.weight_layout import channels_exchanged


def nearest_pixels(offset: float, step: float, count: int, size: int) -> List[int]:
    """Pixel of each result of a nearest ``hbir.resize2d`` along one axis, in exact arithmetic."""
    start, step = Fraction(offset), Fraction(step)
    return [min(max(math.floor(start + i * step), 0), size - 1) for i in range(count)]


def resize_attributes(attrs: dict) -> str:
    """The mode of an ``hbir.resize2d``.

    Raises:
        BpuError: A mode or border that has no meaning here.
    """
    mode, border = str(attrs['mode']), str(attrs['expansionMode'])
    if mode not in ('nearest', 'bilinear') or border != 'border':
        raise BpuError('hbir.resize2d: expected mode nearest or bilinear and expansionMode border, '
                       f'found {mode} and {border}')
    return mode


def _resize2d(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    mode, x = resize_attributes(attrs), inputs[0]
    for axis in (0, 1):
        dim, count = 1 + axis, attrs['size'][axis]
        offset, step, size = attrs['initialOffset'][axis], attrs['step'][axis], x.shape[dim]
        if mode == 'nearest':
            pixels = torch.tensor(nearest_pixels(offset, step, count, size), device=x.device)
            x = x.index_select(dim, pixels)
            continue
        positions = offset + torch.arange(count, dtype=torch.float64, device=x.device) * step
        positions = positions.clamp(0, size - 1)
        lower = positions.floor().long()
        weight = (positions - lower).to(x.dtype).view(-1, *(1, ) * (x.dim() - dim - 1))
        x = torch.lerp(x.index_select(dim, lower),
                       x.index_select(dim, (lower + 1).clamp(max=size - 1)), weight)
    return [x]


def _convtranspose(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """The weight is (O, KH, KW, C / groups), as that of a convolution."""
    groups, (top, left, bottom, right) = attrs['groupNum'], attrs['pad']
    weight = channels_exchanged(inputs[1].permute(0, 3, 1, 2), groups)
    behind = (max(-bottom, 0), max(-right, 0))
    x = F.conv_transpose2d(inputs[0].permute(0, 3, 1, 2), weight, *inputs[2:3],
                           stride=attrs['stride'], output_padding=behind, groups=groups,
                           dilation=attrs['dilation'])
    x = F.pad(x, (-left, -max(right, 0), -top, -max(bottom, 0)))
    return [x.permute(0, 2, 3, 1).contiguous()]


def whole_windows(attrs: dict) -> None:
    """Refuse an ``hbir.avg_pool`` whose divisor at the border the manual leaves open.

    Raises:
        BpuError: Padding, dilation, or windows that reach out of the image.
    """
    if any(attrs['pad']) or any(d != 1 for d in attrs['dilation']) or attrs['ceilMode']:
        raise BpuError('hbir.avg_pool: expected whole windows without padding or dilation, found '
                       f'pad {attrs["pad"]}, dilation {attrs["dilation"]} and ceilMode '
                       f'{attrs["ceilMode"]}')


def _avg_pool(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    whole_windows(attrs)
    x = F.avg_pool2d(inputs[0].permute(0, 3, 1, 2), attrs['kernel'], attrs['stride'])
    return [x.permute(0, 2, 3, 1).contiguous()]


FEATURE_MAPS: Dict[str, Callable] = {
    'hbir.avg_pool': _avg_pool,
    'hbir.convtranspose': _convtranspose,
    'hbir.resize2d': _resize2d,
}
"""Operation -> function of its operands and attributes; a part of the float reference."""
