"""deform_conv2d: compiled samples, block by block, and the reference's product of them."""
from math import prod
from typing import Optional

import torch
from numba import types

from mmdet_bpu.kernels.compiled_loops import machine_code
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.bilinear import (axis_corners, axis_position, right_shift_pair,
                                             rounded, rounded_lanes, weighted_lanes, weighted_one)
from mmdet_bpu.kernels.fast.lanes import (LANES, element_int8, element_int16, splat_wide,
                                          store_float32)
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.kernels.reference.blocks import BLOCK, for_each_block, row_blocks
from mmdet_bpu.kernels.reference.carriers import exact_float_products
from mmdet_bpu.kernels.reference.products import PRODUCT_BLOCK
from mmdet_bpu.program.numerics import Operand

I64 = types.int64
# Pixels of the image, positions of the result, taps, stride, padding before, dilation: y, x each.
GEOMETRY = types.UniTuple(types.int64, 12)


@machine_code(types.void(types.float32[:, :, ::1], *[I64] * 5, GEOMETRY, *[I64] * 5))
def sample_rows(samples, first, image, offset, mask, groups, geometry, multiplier, shift, bits,
                sample_shift, masked):
    """Samples of rows of the result, from ``first`` on, before the product.

    Args:
        samples: (rows, taps, C); float32 that hold integers.
        image, offset, mask: Addresses.
        groups: Offset groups.
        multiplier, shift: Of an offset; shift at least 1.
        sample_shift: Bits by which a weighted sum is shifted to a sample.
        masked: Whether there is a mask.
    """
    (height, width, rows, columns, taps_y, taps_x, stride_y, stride_x, top, left, dilation_y,
     dilation_x) = geometry
    taps, channels = samples.shape[1], samples.shape[2] // groups
    pitch = channels * groups
    for row in range(len(samples)):
        place = first + row
        x_out, y_out = place % columns, place // columns % rows
        picture = image + place // (rows * columns) * height * width * pitch
        for group in range(groups):
            for tap in range(taps):
                index = (place * groups + group) * taps + tap
                anchor_y = y_out * stride_y - top + tap // taps_x * dilation_y
                anchor_x = x_out * stride_x - left + tap % taps_x * dilation_x
                y = axis_position(element_int16(offset + 4 * index), multiplier, shift,
                                  anchor_y << bits, -(1 << bits), height << bits)
                x = axis_position(element_int16(offset + 4 * index + 2), multiplier, shift,
                                  anchor_x << bits, -(1 << bits), width << bits)
                y0, y1, wy0, wy1 = axis_corners(y, height, bits)
                x0, x1, wx0, wx1 = axis_corners(x, width, bits)
                factor = element_int8(mask + index) if masked else 1
                first_channel = group * channels
                upper = picture + y0 * width * pitch + first_channel
                lower = picture + y1 * width * pitch + first_channel
                a, b, c, d = (upper + x0 * pitch, upper + x1 * pitch, lower + x0 * pitch,
                              lower + x1 * pitch)
                out = samples.ctypes.data + 4 * ((row * taps + tap) * pitch + first_channel)
                whole = channels // LANES * LANES
                for channel in range(0, whole, LANES):
                    total = weighted_lanes(a + channel, b + channel, c + channel, d + channel,
                                           wx0, wx1, wy0, wy1, bits) * splat_wide(factor)
                    if sample_shift > 0:
                        total = rounded_lanes(total, sample_shift)
                    store_float32(out + 4 * channel, total)
                for channel in range(whole, channels):
                    one = weighted_one(a + channel, b + channel, c + channel, d + channel, wx0,
                                       wx1, wy0, wy1) * factor
                    if sample_shift > 0:
                        one = rounded(one, sample_shift)
                    samples[row, tap, first_channel + channel] = one


@FAST.into('bpu.deform_conv2d')
def deform_conv2d(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.deform_conv2d: input, weight, bias, offset [, mask] -> (N, OH, OW, O).

    Images of si16 are left to the reference.
    """
    plan = REFERENCE.kernels['bpu.deform_conv2d'].plan(operands, attrs).plan
    if operands[0].dtype != 'si8':
        return None
    _, height, width, channels = operands[0].shape
    geometry = tuple(map(int, (height, width, *plan.size, *plan.kernel, *attrs['stride'],
                               *attrs['pad'][:2], *attrs['dilation'])))
    numbers = (geometry, *right_shift_pair(plan.positions), plan.bits, plan.shift, plan.masked)
    rows, taps = prod(operands[3].shape[:3]), prod(plan.kernel)

    def run(inputs: Tensors, outputs: Tensors) -> None:
        image, offset = inputs[0].data_ptr(), inputs[3].data_ptr()
        mask = inputs[4].data_ptr() if plan.masked else 0
        target = outputs[0].view(rows, -1)

        def work(part: slice) -> None:
            block = target[part]
            # Largest samples are 2**23: float32 holds them exactly, whatever the product's carrier.
            samples = torch.empty(len(block), taps, channels)
            sample_rows(samples.numpy(), part.start, image, offset, mask, plan.offset_groups,
                        *numbers)
            block.copy_(plan.requantizer.scale_(plan.product(samples)))

        with exact_float_products():
            for_each_block(work, row_blocks(rows, taps * channels, PRODUCT_BLOCK, spread=BLOCK),
                           outputs[0].device)

    return run
