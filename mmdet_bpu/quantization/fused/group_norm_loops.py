"""What group norm with its quantizers does with single elements: four compiled loops.

Elements are ``(rows, W, C)``, a row being one of an image; means and reciprocal roots are given for each
image and channel. The rows of ``grids`` are those of the centred elements, their squares, the normalised
elements, and with weights the products and the result.
"""
import numpy as np

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.quantization.fused.rounding import clamped, grid_of, inside, on_grid

ZERO, ONE = np.float32(0), np.float32(1)


@compiled('void(int64, int64, float32[:, :, ::1], float32[:, ::1], float32[:, ::1],'
          'float32[:, :, ::1], float32[:, :, ::1])')
def centre(start, stop, x, means, grids, centred, squares):
    """Centred elements and their squares."""
    of_centred, of_squares = grid_of(grids, 0), grid_of(grids, 1)
    height = len(x) // len(means)
    for row in range(start, stop):
        for column in range(x.shape[1]):
            for c in range(x.shape[2]):
                centred[row, column, c] = on_grid(x[row, column, c] - means[row // height, c],
                                                  of_centred)
            for c in range(x.shape[2]):
                squares[row, column, c] = on_grid(
                    centred[row, column, c] * centred[row, column, c], of_squares)


@compiled('void(int64, int64, float32[:, :, ::1], float32[:, ::1], float32[::1], float32[::1],'
          'float32[:, ::1], float32[:, :, ::1])')
def normalise(start, stop, centred, roots, weight, bias, grids, output):
    """The result, from centred elements."""
    of_normal, of_product, of_output = grid_of(grids, 2), grid_of(grids, -2), grid_of(grids, -1)
    height = len(centred) // len(roots)
    for row in range(start, stop):
        for column in range(centred.shape[1]):
            for c in range(centred.shape[2]):
                output[row, column, c] = on_grid(centred[row, column, c] * roots[row // height, c],
                                                 of_normal)
            if weight.size:
                for c in range(centred.shape[2]):
                    product = on_grid(output[row, column, c] * weight[c], of_product)
                    output[row, column, c] = on_grid(product + bias[c], of_output)


@compiled('void(int64, int64, float32[:, :, ::1], float32[:, ::1], float32[:, ::1], float32[::1],'
          'float32[::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1], float32[:, ::1],'
          'float32[:, ::1], float32[:, ::1])')
def differentiate_result(start, stop, x, means, roots, weight, bias, grids, gradient, to_centred,
                         to_roots, to_weight, to_bias):
    """Gradients of the normalisation; the last three are added up for each row and channel."""
    of_centred, of_normal = grid_of(grids, 0), grid_of(grids, 2)
    of_product, of_output = grid_of(grids, -2), grid_of(grids, -1)
    channels, height = x.shape[2], len(x) // len(means)
    centred, normal = np.empty(channels, np.float32), np.empty(channels, np.float32)
    passed, reached = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for row in range(start, stop):
        image = row // height
        for column in range(x.shape[1]):
            for c in range(channels):
                centred[c] = on_grid(x[row, column, c] - means[image, c], of_centred)
            for c in range(channels):
                rounded = np.rint(centred[c] * roots[image, c] / of_normal[0])
                clipped = clamped(rounded, of_normal[1], of_normal[2])
                normal[c] = clipped * of_normal[0]
                reached[c] = ONE if rounded == clipped else ZERO
            if weight.size:
                for c in range(channels):
                    product = on_grid(normal[c] * weight[c], of_product)
                    passed[c] = gradient[row, column, c] if inside(product + bias[c],
                                                                   of_output) else ZERO
                for c in range(channels):
                    to_bias[row, c] += passed[c]
                for c in range(channels):
                    passed[c] = passed[c] if inside(normal[c] * weight[c], of_product) else ZERO
                for c in range(channels):
                    to_weight[row, c] += passed[c] * normal[c]
                for c in range(channels):
                    passed[c] = passed[c] * weight[c] * reached[c]
            else:
                for c in range(channels):
                    passed[c] = gradient[row, column, c] * reached[c]
            for c in range(channels):
                to_roots[row, c] += passed[c] * centred[c]
            for c in range(channels):
                to_centred[row, column, c] = passed[c] * roots[image, c]


@compiled('void(int64, int64, float32[:, :, ::1], float32[:, ::1], float32[:, ::1],'
          'float32[:, ::1], float32[:, :, ::1], float32[:, ::1])')
def differentiate_squares(start, stop, x, means, to_squares, grids, to_x, sums):
    """Add to the gradients of centred elements what their squares get: ``to_squares`` of each row
    and channel; ``sums`` of the gradients are what the means lose."""
    of_centred, of_squares = grid_of(grids, 0), grid_of(grids, 1)
    channels, height = x.shape[2], len(x) // len(means)
    centred = np.empty(channels, np.float32)
    for row in range(start, stop):
        image = row // height
        for column in range(x.shape[1]):
            for c in range(channels):
                rounded = np.rint((x[row, column, c] - means[image, c]) / of_centred[0])
                clipped = clamped(rounded, of_centred[1], of_centred[2])
                centred[c] = clipped * of_centred[0]
                to_x[row, column, c] = to_x[row, column, c] if rounded == clipped else ZERO
            for c in range(channels):
                reached = inside(centred[c] * centred[c], of_squares)
                reached = reached & inside(x[row, column, c] - means[image, c], of_centred)
                square = (centred[c] + centred[c]) * to_squares[row, c] if reached else ZERO
                to_x[row, column, c] += square
            for c in range(channels):
                sums[row, c] += to_x[row, column, c]
