"""Layer norm of rows with its quantizers: two compiled loops.

The rows of ``grids`` are those of the mean, the centred elements, their squares, the variance, its
reciprocal root, the normalised elements, and with weights the products and the result. Weights
and biases are on their grids; without them they are empty.
"""
import numpy as np

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.quantization.fused.rounding import (clamped, grid_of, inner, inside, on_grid,
                                                   summed, total)

ZERO, HALF, ONE, TWO = (np.float32(each) for each in (0, 0.5, 1, 2))


@inner
def centre(row, mean, of_centred, of_squares, centred, squares):
    """Centred elements of a row and their squares."""
    for i in range(row.size):
        centred[i] = on_grid(row[i] - mean, of_centred)
    for i in range(row.size):
        squares[i] = on_grid(centred[i] * centred[i], of_squares)


@compiled('void(int64, int64, float32[:, ::1], float32[::1], float32[::1], float32[:, ::1], int64,'
          'float32, float32[:, ::1])')
def layer_norm(start, stop, x, weight, bias, grids, lanes, eps, output):
    """Rows are those of ``x`` (rows, n)."""
    of_mean, of_centred, of_squares = grid_of(grids, 0), grid_of(grids, 1), grid_of(grids, 2)
    of_variance, of_root, of_normal = grid_of(grids, 3), grid_of(grids, 4), grid_of(grids, 5)
    of_product, of_output = grid_of(grids, -2), grid_of(grids, -1)
    count = x.shape[1]
    centred, squares = np.empty(count, np.float32), np.empty(count, np.float32)
    partial, size = np.empty(4 * lanes, np.float32), np.float32(count)
    for row in range(start, stop):
        mean = on_grid(total(x[row], partial) / size, of_mean)
        centre(x[row], mean, of_centred, of_squares, centred, squares)
        variance = on_grid(total(squares, partial) / size, of_variance)
        root = on_grid(ONE / np.sqrt(variance + eps), of_root)
        if weight.size:
            for i in range(count):
                product = on_grid(on_grid(centred[i] * root, of_normal) * weight[i], of_product)
                output[row, i] = on_grid(product + bias[i], of_output)
        else:
            for i in range(count):
                output[row, i] = on_grid(centred[i] * root, of_normal)


@compiled('void(int64, int64, float32[:, ::1], float32[::1], float32[::1], float32[:, ::1], int64,'
          'float32, int64, float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])')
def differentiate(start, stop, x, weight, bias, grids, lanes, eps, block, gradient, to_x,
                  to_weight, to_bias):
    """Rows are blocks of ``block`` rows of ``x``; each adds to its own row of the last two."""
    of_mean, of_centred, of_squares = grid_of(grids, 0), grid_of(grids, 1), grid_of(grids, 2)
    of_variance, of_root, of_normal = grid_of(grids, 3), grid_of(grids, 4), grid_of(grids, 5)
    of_product, of_output = grid_of(grids, -2), grid_of(grids, -1)
    count = x.shape[1]
    centred, squares = np.empty(count, np.float32), np.empty(count, np.float32)
    normal, passed = np.empty(count, np.float32), np.empty(count, np.float32)
    terms, to_centred = np.empty(count, np.float32), np.empty(count, np.float32)
    partial, size = np.empty(4 * lanes, np.float32), np.float32(count)
    for row in range(start * block, min(stop * block, len(x))):
        exact_mean = total(x[row], partial) / size
        mean = on_grid(exact_mean, of_mean)
        centre(x[row], mean, of_centred, of_squares, centred, squares)
        exact_variance = total(squares, partial) / size
        exact_root = ONE / np.sqrt(on_grid(exact_variance, of_variance) + eps)
        root = on_grid(exact_root, of_root)
        for i in range(count):
            rounded = np.rint(centred[i] * root / of_normal[0])
            clipped = clamped(rounded, of_normal[1], of_normal[2])
            normal[i] = clipped * of_normal[0]
            terms[i] = ONE if rounded == clipped else ZERO
        if weight.size:
            part = row // block
            for i in range(count):
                product = on_grid(normal[i] * weight[i], of_product)
                passed[i] = gradient[row, i] if inside(product + bias[i], of_output) else ZERO
            for i in range(count):
                to_bias[part, i] += passed[i]
            for i in range(count):
                passed[i] = passed[i] if inside(normal[i] * weight[i], of_product) else ZERO
            for i in range(count):
                to_weight[part, i] += passed[i] * normal[i]
            for i in range(count):
                passed[i] = passed[i] * weight[i] * terms[i]
        else:
            for i in range(count):
                passed[i] = gradient[row, i] * terms[i]
        for i in range(count):
            terms[i] = passed[i] * centred[i]
        to_variance = ZERO
        if inside(exact_root, of_root) and inside(exact_variance, of_variance):
            to_variance = -HALF * summed(terms) * exact_root * exact_root * exact_root
        to_square = TWO * to_variance / size
        for i in range(count):
            square = centred[i] if inside(centred[i] * centred[i], of_squares) else ZERO
            to_centred[i] = passed[i] * root + square * to_square
        for i in range(count):
            to_centred[i] = to_centred[i] if inside(x[row, i] - mean, of_centred) else ZERO
        to_mean = ZERO
        if inside(exact_mean, of_mean):
            to_mean = summed(to_centred) / size
        for i in range(count):
            to_x[row, i] = to_centred[i] - to_mean
