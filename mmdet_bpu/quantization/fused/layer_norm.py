"""Layer norm with its quantizers as one autograd function."""
from typing import Any, Optional, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_bpu.quantization.fused.inner_sites import InnerSites, Quantizers
from mmdet_bpu.quantization.fused.layer_norm_loops import differentiate, layer_norm
from mmdet_bpu.quantization.fused.rounding import LANES, flat, takes

NORMALISING = ('mean.0', 'sub.0', 'mul.0', 'mean.1', 'rsqrt.0', 'mul.1')
AFFINE = ('mul.2', 'add.1')
BLOCK = 64
"""Rows whose gradients of weights are added up in one place."""


def fused_layer_norm(sites: InnerSites, quantizers: Quantizers, input: Tensor,
                     normalized_shape: Sequence[int], weight: Optional[Tensor] = None,
                     bias: Optional[Tensor] = None, eps: float = 1e-5) -> Any:
    """``F.layer_norm`` over the last dimension, quantized inside; NotImplemented over more."""
    affine = AFFINE if weight is not None and bias is not None else ()
    grids = sites.grids(NORMALISING + affine, quantizers, affine)
    if grids is None or len(normalized_shape) != 1 or not takes(input) \
            or affine and not takes(weight, bias):
        return NotImplemented
    constants = [sites.constant(site, x) for site, x in zip(affine, (weight, bias))]
    constants = constants or [input.new_empty(0)] * 2
    if torch.is_grad_enabled() and any(x.requires_grad for x in (input, *constants)):
        return _LayerNorm.apply(grids, eps, input, *constants)
    return _computed(grids, eps, input.contiguous(), *constants)


def _rows(x: Tensor) -> np.ndarray:
    return x.detach().view(-1, x.shape[-1]).numpy()


def _computed(grids: np.ndarray, eps: float, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    output = torch.empty_like(x)
    rows = _rows(x)
    layer_norm(len(rows), rows, flat(weight), flat(bias), grids, LANES, eps, _rows(output),
               work=rows.shape[1])
    return output


class _LayerNorm(torch.autograd.Function):
    """Keeps its operands alone."""

    @staticmethod
    def forward(ctx, grids: np.ndarray, eps: float, x: Tensor, *constants: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.grids, ctx.eps = grids, eps
        ctx.save_for_backward(x, *constants)
        return _computed(grids, eps, x, *constants)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        x, weight, bias = ctx.saved_tensors
        rows, to_x = _rows(x), torch.empty_like(x)
        blocks = -(-len(rows) // BLOCK)
        to_constants = weight.new_zeros(2, blocks, weight.numel())
        differentiate(blocks, rows, flat(weight), flat(bias), ctx.grids, LANES, ctx.eps, BLOCK,
                      _rows(gradient.contiguous()), _rows(to_x), *to_constants.numpy(),
                      work=BLOCK * rows.shape[1])
        return (None, None, to_x, *to_constants.sum(1))
