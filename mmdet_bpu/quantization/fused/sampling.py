"""Deformable sampling, weighting and sum with their quantizers as one autograd function."""
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.fused.inner_sites import InnerSites, Quantizers, grids_of
from mmdet_bpu.quantization.fused.rounding import LANES, flat, takes
from mmdet_bpu.quantization.fused.sampling_loops import differentiate, sample


def fused_samples(sites: InnerSites, quantizers: Quantizers, value: Tensor,
                  shapes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor) -> Any:
    """:func:`~mmdet_bpu.mmcv_operators.level_sampling.weighted_samples`, quantized inside."""
    grids = grids_of(inner_quantizers(sites, quantizers, len(shapes)))
    if grids is None or not takes(value, locations, weights):
        return NotImplemented
    levels = rows_of_levels(shapes)
    operands = [each.contiguous() for each in (value, locations, weights)]
    if torch.is_grad_enabled() and any(each.requires_grad for each in operands):
        return _Sampling.apply(levels, grids, *operands)
    return _sampled(levels, grids, *operands, keep=False)[0]


def inner_quantizers(sites: InnerSites, quantizers: Quantizers,
                     levels: int) -> Optional[List[FakeQuantizer]]:
    """Those of the sampling grid, the samples, the products and the sum, if they are all.

    None too if the samples of different levels have quantizers of their own.
    """
    samples = [f'grid_sample.{level}' for level in range(levels)]
    found = sites.quantizers_of(['sub.0', *samples, 'mul.1', 'sum.0'], quantizers)
    if found is None or any(each is not found[1] for each in found[1:-2]):
        return None
    return [*found[:2], *found[-2:]]


def rows_of_levels(shapes: Sequence[Sequence[int]]) -> np.ndarray:
    """Height, width and first position of each level, int64 (L, 3)."""
    sizes = np.array(shapes, np.int64)
    starts = np.cumsum([0, *sizes.prod(1)])
    return np.column_stack([sizes, starts[:-1]])


def dimensions(value: Tensor, locations: Tensor) -> np.ndarray:
    _, positions, heads, channels = value.shape
    return np.array([heads, channels, positions, locations.shape[1], locations.shape[4]],
                    np.int64)


def _sampled(levels: np.ndarray, grids: np.ndarray, value: Tensor, locations: Tensor,
             weights: Tensor, keep: bool) -> Tuple[Tensor, np.ndarray]:
    """Result (N, Q, heads * channels), and if ``keep``, where gradients pass its quantizer."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    output = value.new_empty(batch, queries, heads * channels)
    kept = np.empty(output.numel() if keep else 0, np.bool_)
    sample(batch * heads * queries, *map(flat, (value, locations, weights)), levels,
           dimensions(value, locations), grids, LANES, flat(output), kept,
           work=locations[0, 0, 0, ..., 0].numel() * channels)
    return output, kept


class _Sampling(torch.autograd.Function):
    """Keeps the operands; backward makes the samples again."""

    @staticmethod
    def forward(ctx, levels: np.ndarray, grids: np.ndarray, *operands: Tensor) -> Tensor:
        output, ctx.kept = _sampled(levels, grids, *operands, keep=True)
        ctx.levels, ctx.grids = levels, grids
        ctx.save_for_backward(*operands)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        value, locations, weights = ctx.saved_tensors
        gradients = [torch.zeros_like(each) for each in ctx.saved_tensors]
        batch, _, heads, _ = value.shape
        differentiate(batch * heads, *map(flat, ctx.saved_tensors), ctx.levels,
                      dimensions(value, locations), ctx.grids, flat(gradient.contiguous()), ctx.kept,
                      *map(flat, gradients), work=locations[0, :, 0, ..., 0].numel()
                      * value.shape[-1])
        return (None, None, *gradients)
