"""Softmax with its quantizers as one autograd function."""
import functools
from typing import Any, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_bpu.quantization.fused.inner_sites import InnerSites, Quantizers
from mmdet_bpu.quantization.fused.rounding import LANES, takes
from mmdet_bpu.quantization.fused.softmax_loops import differentiate, softmax

Grid = Tuple[float, float, float]
SITES = ('sub.0', 'exp.0', 'sum.0', 'reciprocal.0', 'mul.0')


def fused_softmax(sites: InnerSites, quantizers: Quantizers, input: Tensor,
                  dim: Optional[int] = None, *args: Any, **kwargs: Any) -> Any:
    """``F.softmax`` over the last dimension, quantized inside; NotImplemented over another."""
    grids = sites.grids(SITES, quantizers)
    if grids is None or not takes(input) or dim not in (-1, input.dim() - 1):
        return NotImplemented
    if torch.is_grad_enabled() and input.requires_grad:
        return _Softmax.apply(input, grids)
    return _computed(input.contiguous(), grids, _powers(grids))


def _rows(x: Tensor) -> np.ndarray:
    return x.detach().view(-1, x.shape[-1]).numpy()


def _powers(grids: np.ndarray) -> np.ndarray:
    """Powers (2, places): of each integer that a difference can be, and their derivatives."""
    return _table(*map(tuple, grids[:2].tolist()))


@functools.lru_cache(maxsize=32)  # 0.25 MB each with int16 differences; scales stay as calibrated
def _table(of_differences: Grid, of_powers: Grid) -> np.ndarray:
    scale, low, _ = map(np.float32, of_differences)
    integers = torch.arange(int(low), 1, dtype=torch.float32)
    exact = torch.exp(integers * torch.tensor(scale)).numpy()
    scale, low, high = map(np.float32, of_powers)
    rounded = np.rint(exact / scale)
    clipped = rounded.clip(low, high)
    table = np.empty((2, len(exact) + 2), np.float32)
    table[0, :-2], table[1, :-2] = clipped * scale, np.where(rounded == clipped, exact, 0)
    table[:, -2], table[:, -1] = (table[0, 0], 0), np.nan
    return table


def _computed(x: Tensor, grids: np.ndarray, powers: np.ndarray) -> Tensor:
    output = torch.empty_like(x)
    softmax(x.numel() // x.shape[-1], _rows(x), grids, LANES, powers[0], _rows(output),
            work=x.shape[-1])
    return output


class _Softmax(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(ctx, x: Tensor, grids: np.ndarray) -> Tensor:
        x = x.contiguous()
        ctx.grids, ctx.powers = grids, _powers(grids)
        ctx.save_for_backward(x)
        return _computed(x, grids, ctx.powers)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        x, = ctx.saved_tensors
        to_x = torch.empty_like(x)
        differentiate(x.numel() // x.shape[-1], _rows(x), ctx.grids, LANES, *ctx.powers,
                      _rows(gradient.contiguous()), _rows(to_x), work=x.shape[-1])
        return to_x, None
