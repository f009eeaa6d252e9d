"""Learned rounding of weights: to one of two neighbours each, so that a product errs least.

With inputs of second moments H, a row of weights that is off by e errs by ``e H e'`` in mean
square. Rounding to the nearest takes each weight alone; here up or down is chosen for all of a row.
Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (ICML 2020): a soft
choice is learned with a regularizer that drives it to 0 or 1 (eq. 21 to 24); then single weights
change sides as long as that lessens the error. A row that errs more than rounded to the nearest is
rounded so.
"""
from typing import Optional

import torch
from torch import Tensor

from mmdet_bpu.quantization.weight_choices import (STRETCH, Neighbours, logit_of,
                                                   regularizer_power)

WEIGHT = 0.01  # of the regularizer
RATE = 1e-2
SWEEPS, BLOCK = 20, 64
ITERATIONS = 200


@torch.no_grad()
def round_best(weight: Tensor, products: Tensor, reach: Optional[Tensor] = None,
               iterations: int = ITERATIONS, dtype: str = 'int8') -> Tensor:
    """Weights on their grid, rounded up or down as the product errs least, shaped as given.

    Args:
        weight (Tensor): Output channels first.
        products (Tensor): Second moments of the input's columns, (groups, K, K), K weights a row.
        reach (Tensor, optional): Of each channel; see :func:`~mmdet_bpu.graph.scales.weight_scale`.
        iterations (int): Of learning. Defaults to :data:`ITERATIONS`.
        dtype (str): ``int8`` or ``int16``.
    """
    grid, groups = Neighbours(weight, reach, dtype), len(products)
    rows, below, nearest, fixed = (part.view(groups, len(weight) // groups, -1) for part in (
        grid.exact, grid.below, grid.nearest, grid.fixed))
    moments = products / products.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30).view(-1, 1, 1)
    start = nearest.clone()
    if iterations:
        up = _learned(rows, below, moments, iterations)
        start = torch.where(fixed, nearest, below + up)
    found = _descend(start, rows, below, fixed, moments)
    better = _error(found - rows, moments) < _error(nearest - rows, moments)
    best = torch.where(better.unsqueeze(-1), found, nearest)
    return best.view(weight.shape) * grid.scale


def _error(off: Tensor, moments: Tensor) -> Tensor:
    """Mean square of each row's error, (groups, rows)."""
    return (torch.bmm(off, moments) * off).sum(-1)


def _learned(rows: Tensor, below: Tensor, moments: Tensor, iterations: int) -> Tensor:
    """0 or 1 for each weight: whether it goes up."""
    low, high = STRETCH
    choice = logit_of(rows - below)
    optimizer = torch.optim.Adam([choice], lr=RATE)
    for step in range(iterations):
        share = torch.sigmoid(choice)
        stretched = share * (high - low) + low
        soft = stretched.clamp(0, 1)
        # By hand: the gradient of the error takes one product of matrices, autograd three.
        gradient = 2 * torch.bmm(below + soft - rows, moments)
        beta = regularizer_power(step, iterations)
        if beta is not None:
            away = 2 * soft - 1
            gradient -= WEIGHT * 2 * beta * away.abs().pow(beta - 1) * away.sign()
        choice.grad = gradient * (share * (1 - share) * (high - low)) * (stretched == soft)
        optimizer.step()
    return (choice >= 0).to(rows)


def _descend(found: Tensor, rows: Tensor, below: Tensor, fixed: Tensor, moments: Tensor) -> Tensor:
    """Let one column of weights after the other change sides where a row then errs less."""
    slope = torch.bmm(found - rows, moments)  # half the gradient of the error
    for _ in range(SWEEPS):
        changed = False
        for first in range(0, rows.shape[2], BLOCK):
            block = slice(first, first + BLOCK)
            before = found[..., block].clone()
            _descend_block(found[..., block], below[..., block], fixed[..., block],
                           slope[..., block].clone(), moments[:, block, block])
            step = found[..., block] - before
            if step.any():
                changed = True
                slope += torch.bmm(step, moments[:, block])
        if not changed:
            break
    return found


def _descend_block(found: Tensor, below: Tensor, fixed: Tensor, slope: Tensor,
                   moments: Tensor) -> None:
    """Some columns, in place; ``slope`` follows for these alone."""
    curvature = moments.diagonal(dim1=1, dim2=2)
    for column in range(found.shape[2]):
        now = found[..., column]
        step = torch.where(now > below[..., column], -1.0, 1.0)
        gain = 2 * step * slope[..., column] + curvature[:, column, None]
        step = torch.where((gain < 0) & ~fixed[..., column], step, 0.0)
        now += step
        slope += step.unsqueeze(-1) * moments[:, column, None, :]
