"""Samples of feature maps, weighted and summed: what deformable attention reads of them."""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import wrap_torch_function


def _overridable(value: Tensor, shapes: Sequence[Sequence[int]], locations: Tensor,
                 weights: Tensor) -> Tuple[Tensor, ...]:
    return value, locations, weights


@wrap_torch_function(_overridable)
def weighted_samples(value: Tensor, shapes: Sequence[Sequence[int]], locations: Tensor,
                     weights: Tensor) -> Tensor:
    """Bilinear samples of every level around each query, weighted and summed.

    A ``TorchFunctionMode`` sees it as one call, as it sees a function of ``torch``.

    Args:
        value (Tensor): (N, positions, heads, channels), the levels one after the other.
        shapes (Sequence): (height, width) of each level.
        locations (Tensor): (N, queries, heads, levels, points, 2), (x, y) in [0, 1]; outside there
            is 0.
        weights (Tensor): (N, queries, heads, levels, points), or with the last two flat.

    Returns:
        Tensor: (N, queries, heads * channels).
    """
    batch, _, heads, width = value.shape
    queries = locations.shape[1]
    levels = value.split([h * w for h, w in shapes], dim=1)
    grids = 2 * locations - 1
    samples = []
    for level, (height, breadth) in enumerate(shapes):
        image = levels[level].flatten(2).transpose(1, 2)
        image = image.reshape(batch * heads, width, height, breadth)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(
            F.grid_sample(
                image, grid, mode='bilinear', padding_mode='zeros', align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    output = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1)
    output = output.view(batch, heads * width, queries)
    return output.transpose(1, 2).contiguous()
