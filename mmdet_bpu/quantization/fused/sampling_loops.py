"""Deformable sampling, weighted and summed, with its four quantizers: two compiled loops.

Arrays are flat. ``dims`` holds heads H, channels of a head C, positions P, queries Q and points K;
``levels`` (L, 3) the height, the width and the first position of each. The rows of ``grids`` are those of
the sampling grid, the samples, the products and the sum; ``lanes`` is the length of torch's vectors.
Positions and bilinear weights are those of torch's ``grid_sample`` with ``align_corners=False`` and zeros
outside, operation for operation.

A thread copies the channels of one head of one image to a ``plane`` of rows side by side. Its last
row is zero: it stands for pixels outside.
"""
import numpy as np

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.quantization.fused.rounding import (clamped, grid_of, inner, inside, multiply_add,
                                                   on_grid, summed)

ZERO, HALF, ONE, TWO = (np.float32(each) for each in (0, 0.5, 1, 2))
NAN = np.float32(np.nan)


@inner
def position(centred, size):
    """Position in px of a location in [-1, 1]."""
    return multiply_add(centred + ONE, np.float32(size) * HALF, -HALF)


@inner
def pixel(location, size, grid):
    """Position in px of a location in [0, 1], its grid quantized."""
    return position(on_grid(TWO * location - ONE, grid), size)


@inner
def row_of(first, i, j, width, height, outside):
    """Row of pixel (i, j) of a level that begins at row ``first``."""
    seen = (i >= 0) & (j >= 0) & (i < width) & (j < height)
    return first + j * width + i if seen else outside


@inner
def corners(x, y, height, width, first, outside):
    """Rows of the pixels around (x, y), their weights, and the parts: left, right, upper, lower.

    Pixels are in the order upper left, upper right, lower left, lower right.
    """
    left, top = np.floor(x), np.floor(y)
    right_part, lower_part = x - left, y - top
    left_part, upper_part = ONE - right_part, ONE - lower_part
    i, j = int(left), int(top)
    rows = (row_of(first, i, j, width, height, outside),
            row_of(first, i + 1, j, width, height, outside),
            row_of(first, i, j + 1, width, height, outside),
            row_of(first, i + 1, j + 1, width, height, outside))
    weights = (left_part * upper_part, right_part * upper_part,
               left_part * lower_part, right_part * lower_part)
    return rows, weights, (left_part, right_part, upper_part, lower_part)


@inner
def is_seen(x, y, height, width):
    """Whether (x, y) has a pixel of the level beside it."""
    return x > -ONE and x < np.float32(width) and y > -ONE and y < np.float32(height)


@inner
def blended(plane, c, rows, weights):
    """The bilinear sample of a channel."""
    upper = multiply_add(plane[rows[1], c], weights[1], plane[rows[0], c] * weights[0])
    return multiply_add(plane[rows[3], c], weights[3],
                        multiply_add(plane[rows[2], c], weights[2], upper))


@inner
def load_plane(value, image, head, heads, plane):
    """The channels of one head of one image; the last row of ``plane`` stays."""
    positions, channels = len(plane) - 1, plane.shape[1]
    for position in range(positions):
        first = ((image * positions + position) * heads + head) * channels
        for c in range(channels):
            plane[position, c] = value[first + c]


@inner
def add_up(products, lanes, sums):
    """Sum of rows (n, channels), in torch's order of a row of n: see ``rounding.total``."""
    vectors = len(products) // lanes
    sums[:] = ZERO
    for index in range(vectors * lanes, len(products)):
        for c in range(sums.size):
            sums[c] += products[index, c]
    for lane in range(lanes if vectors else 0):
        for vector in range(1, vectors):
            for c in range(sums.size):
                products[lane, c] += products[vector * lanes + lane, c]
        for c in range(sums.size):
            sums[c] += products[lane, c]


@compiled('void(int64, int64, float32[::1], float32[::1], float32[::1], int64[:, ::1], int64[::1],'
          'float32[:, ::1], int64, float32[::1], boolean[::1])')
def sample(start, stop, value, locations, weights, levels, dims, grids, lanes, output, kept):
    """Rows are heads of an image times queries, queries fastest.

    ``kept`` says where gradients pass the last quantizer; it may be empty.
    """
    heads, channels, positions, queries, points = dims[0], dims[1], dims[2], dims[3], dims[4]
    grid, of_samples = grid_of(grids, 0), grid_of(grids, 1)
    of_products, of_sum = grid_of(grids, 2), grid_of(grids, 3)
    plane = np.zeros((positions + 1, channels), np.float32)
    products = np.empty((len(levels) * points, channels), np.float32)
    sums = np.empty(channels, np.float32)
    for row in range(start, stop):
        image, head, query = row // queries // heads, row // queries % heads, row % queries
        if query == 0 or row == start:
            load_plane(value, image, head, heads, plane)
        place = (image * queries + query) * heads + head
        for index in range(len(products)):
            level = index // points
            height, width, first = levels[level, 0], levels[level, 1], levels[level, 2]
            at = place * len(products) + index
            weight = weights[at]
            x = pixel(locations[2 * at], width, grid)
            y = pixel(locations[2 * at + 1], height, grid)
            if not is_seen(x, y, height, width):
                nothing = ZERO if (x == x) & (y == y) else NAN
                for c in range(channels):
                    products[index, c] = nothing
                continue
            rows, shares, _ = corners(x, y, height, width, first, positions)
            for c in range(channels):
                taken = on_grid(blended(plane, c, rows, shares), of_samples)
                products[index, c] = on_grid(taken * weight, of_products)
        add_up(products, lanes, sums)
        first = place * channels
        for c in range(channels):
            output[first + c] = on_grid(sums[c], of_sum)
        if kept.size:
            for c in range(channels):
                kept[first + c] = inside(sums[c], of_sum)


@compiled('void(int64, int64, float32[::1], float32[::1], float32[::1], int64[:, ::1], int64[::1],'
          'float32[:, ::1], float32[::1], boolean[::1], float32[::1], float32[::1], float32[::1])')
def differentiate(start, stop, value, locations, weights, levels, dims, grids, gradient, kept,
                  to_value, to_locations, to_weights):
    """Rows are heads of an image. Gradients are written; those of samples outside stay."""
    heads, channels, positions, queries, points = dims[0], dims[1], dims[2], dims[3], dims[4]
    grid, of_samples, of_products = grid_of(grids, 0), grid_of(grids, 1), grid_of(grids, 2)
    plane = np.zeros((positions + 1, channels), np.float32)
    to_plane = np.empty((positions + 1, channels), np.float32)
    mixed, of_sum = np.empty(channels, np.float32), np.empty(channels, np.float32)
    of_mixed, terms = np.empty(channels, np.float32), np.empty(channels, np.float32)
    along_x, along_y = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for row in range(start, stop):
        image, head = row // heads, row % heads
        load_plane(value, image, head, heads, plane)
        to_plane[:] = ZERO
        for query in range(queries):
            place = (image * queries + query) * heads + head
            for c in range(channels):
                of_sum[c] = gradient[place * channels + c] if kept[place * channels + c] else ZERO
            for index in range(len(levels) * points):
                level = index // points
                height, width, first = levels[level, 0], levels[level, 1], levels[level, 2]
                at = place * len(levels) * points + index
                weight = weights[at]
                x = pixel(locations[2 * at], width, grid)
                y = pixel(locations[2 * at + 1], height, grid)
                if not is_seen(x, y, height, width):
                    continue
                rows, shares, parts = corners(x, y, height, width, first, positions)
                nw, ne, sw, se = rows
                left_part, right_part, upper_part, lower_part = parts
                for c in range(channels):
                    mixed[c] = blended(plane, c, rows, shares)
                for c in range(channels):
                    rounded = np.rint(mixed[c] / of_samples[0])
                    clipped = clamped(rounded, of_samples[1], of_samples[2])
                    taken = clipped * of_samples[0]
                    passed = of_sum[c] if inside(taken * weight, of_products) else ZERO
                    terms[c] = passed * taken
                    of_mixed[c] = passed * weight if rounded == clipped else ZERO
                to_weights[at] = summed(terms)
                for c in range(channels):
                    along_x[c] = of_mixed[c] * ((plane[ne, c] - plane[nw, c]) * upper_part
                                                + (plane[se, c] - plane[sw, c]) * lower_part)
                for c in range(channels):
                    along_y[c] = of_mixed[c] * ((plane[sw, c] - plane[nw, c]) * left_part
                                                + (plane[se, c] - plane[ne, c]) * right_part)
                if inside(TWO * locations[2 * at] - ONE, grid):
                    to_locations[2 * at] = summed(along_x) * np.float32(width)
                if inside(TWO * locations[2 * at + 1] - ONE, grid):
                    to_locations[2 * at + 1] = summed(along_y) * np.float32(height)
                for c in range(channels):
                    to_plane[nw, c] += of_mixed[c] * shares[0]
                for c in range(channels):
                    to_plane[ne, c] += of_mixed[c] * shares[1]
                for c in range(channels):
                    to_plane[sw, c] += of_mixed[c] * shares[2]
                for c in range(channels):
                    to_plane[se, c] += of_mixed[c] * shares[3]
        for position in range(positions):
            first = ((image * positions + position) * heads + head) * channels
            for c in range(channels):
                to_value[first + c] = to_plane[position, c]
