"""Float reference of ``hbir.deform_conv2d``, channels last."""
from typing import List, Tuple

import torch
from torch import Tensor


def deform_conv2d(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """Sample each tap bilinearly, zeros outside the image, then multiply by the weights.

    Args:
        inputs (list[Tensor]): image (N, H, W, C), weight (O, KH, KW, C / groups), offset
            (N, OH, OW, groups of offsets x KH x KW x 2) in px, y before x, mask without the 2,
            and optionally bias (O).
        attrs (dict): Attributes of the operation.

    Returns:
        list[Tensor]: One tensor (N, OH, OW, O).
    """
    image, weight, offset, mask = inputs[:4]
    groups, (_, *kernel) = attrs['offsetGroupNum'], weight.shape[:3]
    batch, height, width = offset.shape[:3]
    offset = offset.view(batch, height, width, groups, *kernel, 2)
    steps = zip((height, width), kernel, attrs['stride'], attrs['pad'], attrs['dilation'])
    y, x = (torch.arange(count)[:, None] * stride - pad + torch.arange(taps) * dilation
            for count, taps, stride, pad, dilation in steps)
    samples = _bilinear(image, offset[..., 0] + y[:, None, None, :, None],
                        offset[..., 1] + x[:, None, None, :])
    if attrs['useMask']:
        samples = samples * mask.view(batch, height, width, groups, *kernel, 1)
    # (N, OH, OW, KH, KW, C), then the channels in the groups of the product.
    samples = samples.movedim(3, -2).flatten(-2).unflatten(-1, (attrs['groupNum'], -1))
    weight = weight.unflatten(0, (attrs['groupNum'], -1))
    output = torch.einsum('nyxabgc,goabc->nyxgo', samples, weight).flatten(-2)
    return [output + inputs[4] if len(inputs) > 4 else output]


def _bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Samples (N, OH, OW, G, KH, KW, C / G) of an image (N, H, W, C) at positions (..., KH, KW)."""
    batch, height, width, _ = image.shape
    groups = y.shape[3]
    image = image.unflatten(-1, (groups, -1))
    index = torch.arange(batch).view(-1, 1, 1, 1, 1, 1), torch.arange(groups).view(-1, 1, 1)
    total = 0
    for row, row_weight in _neighbours(y, height):
        for column, column_weight in _neighbours(x, width):
            pixel = image[index[0], row, column, index[1]]
            total = total + pixel * (row_weight * column_weight)[..., None]
    return total


def _neighbours(position: Tensor, size: int) -> Tuple[Tuple[Tensor, Tensor], ...]:
    """Pixels below and above, clamped into the image, and their weights: 0 outside."""
    position = position.clamp(-1, size)
    below = position.floor()
    pairs = ((below, 1 - (position - below)), (below + 1, position - below))
    return tuple((pixel.clamp(0, size - 1).to(torch.int64),
                  torch.where((pixel >= 0) & (pixel < size), weight, 0.0))
                 for pixel, weight in pairs)
