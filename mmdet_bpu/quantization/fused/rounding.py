"""What compiled loops do with one element, and with a row of them.

A grid is three float32 numbers: scale, lowest and highest integer.
"""
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.kernels.compiled_loops import numba

LANES = 16 if torch.backends.cpu.get_cpu_capability() == 'AVX512' else 8
"""Elements of a vector of torch's kernels on this processor."""


def inner(function: Callable) -> Callable:
    """Decorator of a function that compiled loops call."""
    return function if numba is None else numba.extending.register_jitable(function)


multiply_add = None  # nothing that calls it runs without numba
if numba is not None:

    @numba.extending.intrinsic
    def multiply_add(typing_context, x, y, z):
        """``x * y + z`` rounded once, as compilers have contracted it in torch's sampling."""
        single = numba.types.float32

        def generate(context, builder, signature, arguments):
            return builder.fma(*arguments)

        return single(single, single, single), generate


@inner
def grid_of(grids, index):
    """A row as three numbers, which no store to an array can change."""
    return grids[index, 0], grids[index, 1], grids[index, 2]


@inner
def clamped(x, low, high):
    """``x`` within [low, high]; NaN stays."""
    x = low if x < low else x
    return high if x > high else x


@inner
def on_grid(x, grid):
    """The number of a grid that is nearest to ``x``, of two the even integer."""
    return clamped(np.rint(x / grid[0]), grid[1], grid[2]) * grid[0]


@inner
def inside(x, grid):
    """Whether the grid reaches to ``x``, so that gradients pass."""
    rounded = np.rint(x / grid[0])
    return (rounded >= grid[1]) & (rounded <= grid[2])


@inner
def total(row, partial):
    """Sum of a row in torch's order, which rounds in float32 and so decides integers.

    As torch's reduction of a contiguous dimension (``SumKernel.cpp``): four vectors of partial sums,
    then the rest, then the lanes one after the other. Equal to the last bit for rows of fewer than 64
    vectors; of longer ones torch adds up in more steps.

    Args:
        row: float32 (n, ).
        partial: Room for the partial sums, float32 (4 * :data:`LANES`, ).
    """
    lanes = partial.size // 4
    vectors = row.size // lanes
    blocks = vectors // 4
    for lane in range(partial.size if blocks else lanes):
        partial[lane] = np.float32(0)
    for block in range(blocks):
        for lane in range(partial.size):
            partial[lane] += row[block * partial.size + lane]
    for vector in range(4 * blocks, vectors):
        for lane in range(lanes):
            partial[lane] += row[vector * lanes + lane]
    for other in range(1, 4 if blocks else 1):
        for lane in range(lanes):
            partial[lane] += partial[other * lanes + lane]
    result = np.float32(0)
    for index in range(vectors * lanes, row.size):
        result += row[index]
    for lane in range(lanes):
        result += partial[lane]
    return result


@inner
def summed(row):
    """Sum of a row in eight partial sums, quick for short rows; of gradients, which nothing rounds."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    e, f, g, h = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    whole = row.size // 8
    for chunk in range(whole):
        i = 8 * chunk
        a += row[i]
        b += row[i + 1]
        c += row[i + 2]
        d += row[i + 3]
        e += row[i + 4]
        f += row[i + 5]
        g += row[i + 6]
        h += row[i + 7]
    for i in range(8 * whole, row.size):
        a += row[i]
    return ((a + e) + (c + g)) + ((b + f) + (d + h))


def takes(*tensors: Tensor) -> bool:
    """Whether compiled loops can work on these tensors."""
    return compiled_loops.usable() and all(
        x.device.type == 'cpu' and x.dtype == torch.float32 and x.numel()
        and type(x) in (Tensor, torch.nn.Parameter) for x in tensors)


def flat(x: Tensor) -> np.ndarray:
    """Elements of a contiguous tensor, sharing its memory."""
    return x.detach().view(-1).numpy()
