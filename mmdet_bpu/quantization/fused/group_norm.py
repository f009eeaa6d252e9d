"""Group norm with its quantizers as one autograd function.

Its means, of few elements, are torch's own; what is done with single elements runs in compiled loops.
"""
from typing import Any, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_bpu.quantization.fused.group_norm_loops import (centre, differentiate_result,
                                                           differentiate_squares, normalise)
from mmdet_bpu.quantization.fused.inner_sites import InnerSites, Quantizers
from mmdet_bpu.quantization.fused.rounding import flat, takes

MEANS = ('mean.0', 'mean.1', 'mean.2', 'mean.3', 'rsqrt.0')
ELEMENTS = ('sub.0', 'mul.0', 'mul.1')
AFFINE = ('mul.2', 'add.1')


class Statistics(NamedTuple):
    """Of each image and group, and where gradients pass their quantizers.

    Attributes:
        mean (Tensor): (N, 1, 1, G, 1).
        root (Tensor): Likewise, the reciprocal of the deviation, and before it was rounded.
        exact_root (Tensor): Before it was rounded.
        mean_passes (Tensor): float32 (N, H, 1, G, 1), 0 or 1.
        root_passes (Tensor): Likewise, down to the squares.
    """
    mean: Tensor
    root: Tensor
    exact_root: Tensor
    mean_passes: Tensor
    root_passes: Tensor


def fused_group_norm(sites: InnerSites, quantizers: Quantizers, input: Tensor, num_groups: int,
                     weight: Optional[Tensor] = None, bias: Optional[Tensor] = None,
                     eps: float = 1e-5) -> Any:
    """``F.group_norm`` of (N, C, H, W), quantized inside."""
    affine = AFFINE if weight is not None and bias is not None else ()
    grids = sites.grids(MEANS + ELEMENTS + affine, quantizers, affine)
    if grids is None or input.dim() != 4 or not takes(input) \
            or affine and not takes(weight, bias):
        return NotImplemented
    constants = [sites.constant(site, x) for site, x in zip(affine, (weight, bias))]
    constants = constants or [input.new_empty(0)] * 2
    pixels = input.permute(0, 2, 3, 1).contiguous()
    if torch.is_grad_enabled() and any(x.requires_grad for x in (input, *constants)):
        output = _GroupNorm.apply(grids, eps, num_groups, pixels, *constants)
    else:
        output, _ = _computed(grids, eps, num_groups, pixels, *constants)
    return output.permute(0, 3, 1, 2)


def _rows(x: Tensor) -> np.ndarray:
    """(N, H, W, C) as (rows, W, C)."""
    return x.detach().flatten(0, 1).numpy()


def _rounded(x: Tensor, grid: np.ndarray) -> Tuple[Tensor, Tensor]:
    """``x`` on a grid, and whether it was inside."""
    scale, low, high = grid
    rounded = torch.div(x, torch.tensor(scale)).round_()
    clamped = rounded.clamp(low, high)
    return clamped * torch.tensor(scale), rounded == clamped


def _mean(x: Tensor, grids: np.ndarray) -> Tuple[Tensor, Tensor]:
    """Mean (N, 1, 1, G, 1) of (N, H, W, G, c) in two steps, and where gradients pass both."""
    rows, of_rows = _rounded(torch.mean(x, (2, 4), keepdim=True), grids[0])
    mean, of_mean = _rounded(torch.mean(rows, 1, keepdim=True), grids[1])
    return mean, of_rows & of_mean


def _of_channels(x: Tensor, channels: int) -> np.ndarray:
    """(N, 1, 1, G, 1) or (N, H, 1, G, 1) as (N or N * H, C)."""
    return x.expand(*x.shape[:-1], channels // x.shape[3]).reshape(-1, channels).numpy()


def _computed(grids: np.ndarray, eps: float, groups: int, x: Tensor, weight: Tensor,
              bias: Tensor) -> Tuple[Tensor, Statistics]:
    channels, of_elements = x.shape[3], grids[len(MEANS):]
    grouped = x.unflatten(3, (groups, -1))
    mean, mean_passes = _mean(grouped, grids[:2])
    centred, squares = torch.empty_like(x), torch.empty_like(x)
    rows, work = _rows(x), x[0, 0].numel()
    centre(len(rows), rows, _of_channels(mean, channels), of_elements, _rows(centred),
           _rows(squares), work=work)
    variance, root_passes = _mean(squares.view_as(grouped), grids[2:4])
    exact_root = torch.rsqrt(variance + eps)
    root, of_root = _rounded(exact_root, grids[4])
    normalise(len(rows), _rows(centred), _of_channels(root, channels), flat(weight), flat(bias),
              of_elements, _rows(squares), work=work)
    return squares, Statistics(mean, root, exact_root, mean_passes.float(),
                               (root_passes & of_root).float())


class _GroupNorm(torch.autograd.Function):
    """Keeps its operands and what is known of each group. Of pixels (N, H, W, C)."""

    @staticmethod
    def forward(ctx, grids: np.ndarray, eps: float, groups: int, x: Tensor,
                *constants: Tensor) -> Tensor:
        output, ctx.statistics = _computed(grids, eps, groups, x, *constants)
        ctx.grids, ctx.groups = grids[len(MEANS):], groups
        ctx.save_for_backward(x, *constants)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        x, weight, bias = ctx.saved_tensors
        known, (batch, height, width, channels) = ctx.statistics, x.shape
        rows, work = _rows(x), x[0, 0].numel()
        means, to_x = _of_channels(known.mean, channels), torch.empty_like(x)
        sums = x.new_zeros(4, len(rows), channels)
        to_roots, to_weight, to_bias, lost = sums

        def of_groups(of_channels: Tensor) -> Tensor:
            """Sum over each group of each image, (N, 1, 1, G, 1)."""
            return of_channels.view(batch, height, 1, ctx.groups, -1).sum((1, 4), keepdim=True)

        differentiate_result(len(rows), rows, means, _of_channels(known.root, channels),
                             flat(weight), flat(bias), ctx.grids, _rows(gradient.contiguous()),
                             _rows(to_x), *sums[:3].numpy(), work=work)
        size = height * width * channels // ctx.groups
        to_squares = -0.5 * of_groups(to_roots) * known.exact_root**3 * known.root_passes / size
        differentiate_squares(len(rows), rows, means, _of_channels(to_squares, channels), ctx.grids,
                              _rows(to_x), lost.numpy(), work=work)
        to_x.unflatten(3, (ctx.groups, -1)).sub_(of_groups(lost) * known.mean_passes / size)
        constants = (to_weight.sum(0), to_bias.sum(0)) if weight.numel() else (None, None)
        return (None, None, None, to_x, *constants)
