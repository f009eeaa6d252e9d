"""Softmax of rows with its five quantizers: two compiled loops.

The rows of ``grids`` are those of the difference from the maximum, the powers, their sum, its reciprocal
and the result. Differences are integers of few values, so powers come from a table: of the integers
from the lowest to 0, of one that saturates, and of NaN. ``slopes`` are its derivatives.
"""
import numpy as np

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.quantization.fused.rounding import (grid_of, inner, inside, on_grid, summed,
                                                   total)

ZERO, ONE = np.float32(0), np.float32(1)
LOWEST = np.float32(-np.inf)


@inner
def greatest(row, partial):
    """Largest element of a row; NaN is none."""
    lanes = partial.size // 4
    whole = row.size // lanes
    for lane in range(lanes):
        partial[lane] = LOWEST
    for vector in range(whole):
        for lane in range(lanes):
            x = row[vector * lanes + lane]
            partial[lane] = x if x > partial[lane] else partial[lane]
    result = LOWEST
    for lane in range(lanes):
        result = partial[lane] if partial[lane] > result else result
    for index in range(whole * lanes, row.size):
        result = row[index] if row[index] > result else result
    return result


@inner
def find(row, largest, grid, saturated, places):
    """Places in the table of the differences of a row from its largest element."""
    for i in range(row.size):
        rounded = np.rint((row[i] - largest) / grid[0])
        place = rounded - grid[1]
        place = saturated if rounded < grid[1] else place
        place = place if rounded == rounded else saturated + ONE
        places[i] = np.int32(place)


@compiled('void(int64, int64, float32[:, ::1], float32[:, ::1], int64, float32[::1],'
          'float32[:, ::1])')
def softmax(start, stop, x, grids, lanes, table, output):
    """Rows are those of ``x`` (rows, n)."""
    of_shifted, of_sum = grid_of(grids, 0), grid_of(grids, 2)
    of_reciprocal, of_output = grid_of(grids, 3), grid_of(grids, 4)
    count = x.shape[1]
    places, powers = np.empty(count, np.int32), np.empty(count, np.float32)
    partial = np.empty(4 * lanes, np.float32)
    saturated = np.float32(table.size - 2)
    for row in range(start, stop):
        find(x[row], greatest(x[row], partial), of_shifted, saturated, places)
        for i in range(count):
            powers[i] = table[places[i]]
        reciprocal = on_grid(ONE / on_grid(total(powers, partial), of_sum), of_reciprocal)
        for i in range(count):
            output[row, i] = on_grid(powers[i] * reciprocal, of_output)


@compiled('void(int64, int64, float32[:, ::1], float32[:, ::1], int64, float32[::1], float32[::1],'
          'float32[:, ::1], float32[:, ::1])')
def differentiate(start, stop, x, grids, lanes, table, slopes, gradient, to_x):
    """Rows are those of ``x`` (rows, n). The largest elements share what reaches the maximum."""
    of_shifted, of_sum = grid_of(grids, 0), grid_of(grids, 2)
    of_reciprocal, of_output = grid_of(grids, 3), grid_of(grids, 4)
    count = x.shape[1]
    places, powers = np.empty(count, np.int32), np.empty(count, np.float32)
    of_powers, terms = np.empty(count, np.float32), np.empty(count, np.float32)
    partial = np.empty(4 * lanes, np.float32)
    saturated = np.float32(table.size - 2)
    for row in range(start, stop):
        largest = greatest(x[row], partial)
        find(x[row], largest, of_shifted, saturated, places)
        for i in range(count):
            powers[i] = table[places[i]]
        sums = total(powers, partial)
        exact = ONE / on_grid(sums, of_sum)
        reciprocal = on_grid(exact, of_reciprocal)
        for i in range(count):
            passed = gradient[row, i] if inside(powers[i] * reciprocal, of_output) else ZERO
            of_powers[i] = passed * reciprocal
            terms[i] = passed * powers[i]
        to_sum = ZERO
        if inside(exact, of_reciprocal) and inside(sums, of_sum):
            to_sum = -summed(terms) * exact * exact
        for i in range(count):
            terms[i] = slopes[places[i]]
        for i in range(count):
            of_powers[i] = (of_powers[i] + to_sum) * terms[i]
        ties = 0
        for i in range(count):
            ties += x[row, i] == largest
        to_largest = summed(of_powers) / np.float32(max(ties, 1))
        for i in range(count):
            to_x[row, i] = of_powers[i] - (to_largest if x[row, i] == largest else ZERO)
