"""Deformable sampling, weighting and sum, and what calibration counts of each, in one pass.

Written out, every sample of a picture and every product goes to memory and back for its observer.
"""
from typing import Any, Sequence

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.quantization.fused.inner_sites import InnerSites, Quantizers, tallies_of
from mmdet_bpu.quantization.fused.rounding import LANES, flat, takes
from mmdet_bpu.quantization.fused.sampling import dimensions, inner_quantizers, rows_of_levels
from mmdet_bpu.quantization.fused.sampling_loops import (NAN, ONE, TWO, ZERO, add_up, blended, corners,
                                                         is_seen, load_plane, position)
from mmdet_bpu.quantization.observers_cpu import count, empty_into


@compiled('void(int64, int64, int64, int64, float32[::1], float32[::1], float32[::1], int64[:, ::1],'
          'int64[::1], int64, float32[::1], UniTuple(float64[:, ::1], 4), UniTuple(float64[::1], 4),'
          'UniTuple(float32[::1], 4), UniTuple(uint8[::1], 4))')
def _sample_and_count(start, stop, parts, rows, value, locations, weights, levels, dims, lanes,
                      output, counts, limits, largest, nan):
    """As ``sampling_loops.sample`` without a grid; part ``p`` of the rows is counted in rows ``p``.

    Tuples hold what is counted of the locations, the samples, the products and the sum.
    """
    heads, channels, positions, queries, points = dims[0], dims[1], dims[2], dims[3], dims[4]
    number = len(levels) * points
    plane = np.zeros((positions + 1, channels), np.float32)
    grid, sums = np.empty(2 * number, np.float32), np.empty(channels, np.float32)
    samples = np.empty((number, channels), np.float32)
    products = np.empty((number, channels), np.float32)
    places = np.empty(max(samples.size, grid.size), np.uint32)
    of_grid, of_samples = np.zeros((4, counts[0].shape[1]), np.int32), np.zeros(
        (4, counts[1].shape[1]), np.int32)
    of_products, of_sum = np.zeros((4, counts[2].shape[1]), np.int32), np.zeros(
        (4, counts[3].shape[1]), np.int32)
    for part in range(start, stop):
        own, after = rows * part // parts, rows * (part + 1) // parts
        for row in range(own, after):
            image, head, query = row // queries // heads, row // queries % heads, row % queries
            if query == 0 or row == own:
                load_plane(value, image, head, heads, plane)
            place = (image * queries + query) * heads + head
            for index in range(number):
                level = index // points
                height, width, first = levels[level, 0], levels[level, 1], levels[level, 2]
                at = place * number + index
                grid[2 * index] = TWO * locations[2 * at] - ONE
                grid[2 * index + 1] = TWO * locations[2 * at + 1] - ONE
                x, y = position(grid[2 * index], width), position(grid[2 * index + 1], height)
                weight = weights[at]
                if is_seen(x, y, height, width):
                    around, shares_of, _ = corners(x, y, height, width, first, positions)
                    for c in range(channels):
                        samples[index, c] = blended(plane, c, around, shares_of)
                else:
                    samples[index] = ZERO if (x - x == ZERO) & (y - y == ZERO) else NAN  # of infinity too
                for c in range(channels):
                    products[index, c] = samples[index, c] * weight
            count(grid, counts[0][part], limits[0][part:part + 1], largest[0][part:part + 1],
                  nan[0][part:part + 1], of_grid, places)
            count(samples.reshape(-1), counts[1][part], limits[1][part:part + 1],
                  largest[1][part:part + 1], nan[1][part:part + 1], of_samples, places)
            count(products.reshape(-1), counts[2][part], limits[2][part:part + 1],
                  largest[2][part:part + 1], nan[2][part:part + 1], of_products, places)
            add_up(products, lanes, sums)
            count(sums, counts[3][part], limits[3][part:part + 1], largest[3][part:part + 1],
                  nan[3][part:part + 1], of_sum, places)
            output[place * channels:(place + 1) * channels] = sums
        empty_into(counts[0][part], of_grid)
        empty_into(counts[1][part], of_samples)
        empty_into(counts[2][part], of_products)
        empty_into(counts[3][part], of_sum)


def counted_samples(sites: InnerSites, quantizers: Quantizers, value: Tensor,
                    shapes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor) -> Any:
    """:func:`~mmdet_bpu.mmcv_operators.level_sampling.weighted_samples`, observed inside.

    NotImplemented where gradients are wanted, or an observer does not count as the loops do.
    """
    operands = value, locations, weights
    if not takes(*operands) or torch.is_grad_enabled() and any(
            each.requires_grad for each in operands):
        return NotImplemented
    batch, _, heads, channels = value.shape
    rows, work = batch * heads * locations.shape[1], locations[0, 0, 0, ..., 0].numel() * channels
    parts = len(compiled_loops.shares(rows, work))
    observing = inner_quantizers(sites, quantizers, len(shapes))
    tallies = tallies_of(observing, parts)
    if tallies is None:
        return NotImplemented
    output = value.new_empty(batch, locations.shape[1], heads * channels)
    _sample_and_count(parts, parts, rows, *(flat(each.contiguous()) for each in operands),
                      rows_of_levels(shapes), dimensions(value, locations), LANES, flat(output),
                      *zip(*(tally.arrays for tally in tallies)), work=-(-rows * work // parts))
    for quantizer, tally in zip(observing, tallies):
        quantizer.finish(tally)
    return output
