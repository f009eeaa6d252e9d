"""Convolutions whose channels do not mix: each output channel reads one of the input.

A row of a product would have as many values as the window has pixels, and a panel one column that
counts. Here the channels of a pixel, which lie side by side, are the lanes, and the sum over the
window stays in registers.
"""
import numpy as np
from numba import njit, types

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.kernels.fast.lanes import (LANES, element_int8, element_int16, element_int32,
                                          load_int8, load_int16, load_int32, store_int32, widen)
from mmdet_bpu.kernels.fast.memory import int32_at
from mmdet_bpu.kernels.fast.product_finish import GROUP, finish, include_residual
from mmdet_bpu.kernels.fast.product_loops import INT, RANGE, SCALES, Window
from mmdet_bpu.kernels.fast.product_operands import (MULTIPLICATIONS, NO_SCALES, by_parts,
                                                       column_scales, place_of)
from mmdet_bpu.kernels.kernel_set import Into, Tensors
from mmdet_bpu.kernels.reference.epilogue import Epilogue
from mmdet_bpu.program.numerics import Operand

BLOCK = 64  # pixels whose accumulators are finished together


def is_depthwise(operands: list[Operand], groups: int) -> bool:
    """Whether a convolution has one channel a group, and int8 weights that do not change."""
    return (groups == operands[0].shape[-1] == operands[1].shape[0] and groups > 1
            and operands[1].dtype == 'si8'
            and all(operand.constant is not None and operand.constant.device.type == 'cpu'
                    for operand in operands[1:3]))


def plan_depthwise(operands: list[Operand], attrs: dict, window: Window) -> Into:
    """Ready to run: (N, H, W, C) x (C, KH, KW, 1) + (C) [+ residual] -> (N, OH, OW, C).

    Raises:
        BpuError: What the numeric contract excludes; see :class:`Epilogue`.
    """
    epilogue = Epilogue(operands, attrs, False, 'bpu.conv2d')
    weight = operands[1].constant.numpy().reshape(window.channels, -1)
    pixels = weight.shape[1]
    taps = by_parts(weight.T.reshape(-1), pixels).astype(np.int16)  # a row a pixel of the window
    bias = by_parts(operands[2].constant.numpy(), 1)[0]
    scales = column_scales(epilogue.requantizer, window.channels, 1)
    residual_scales = NO_SCALES if epilogue.residual is None else column_scales(
        epilogue.residual, window.channels, 1)
    rows = int(np.prod(attrs['out_shapes'][0][:-1]))
    work = max(1, weight.size // MULTIPLICATIONS)

    def into(inputs: Tensors, outputs: Tensors) -> None:
        residual = inputs[3] if len(inputs) > 3 else None
        depthwise(rows, *place_of(inputs[0]), window, taps, bias, *scales, *place_of(residual),
                  *residual_scales, *place_of(outputs[0]), work=work)

    return into


def _window_sum(size: int, product):
    """A loop that sums ``product(value, tap)``, addresses of ``size`` and 2 bytes, over a window."""

    @njit
    def window_sum(source, top, left, image, window, taps, taps_step, channel, total):
        for tap_y in range(window.kernel_height):
            y = top + tap_y * window.dilation_y
            if y < 0 or y >= window.height:
                continue
            line = (image + y) * window.width
            for tap_x in range(window.kernel_width):
                x = left + tap_x * window.dilation_x
                if x >= 0 and x < window.width:
                    total = total + product(
                        source + ((line + x) * window.channels + channel) * size,
                        taps + 2 * ((tap_y * window.kernel_width + tap_x) * taps_step + channel))
        return total

    return window_sum


def _block_sums(size: int, product, single_product):
    """A loop that sums the windows of a block of pixels, in some of GROUP channels."""
    lanes, single = _window_sum(size, product), _window_sum(size, single_product)

    @njit
    def block_sums(source, first, count, window, taps, taps_step, bias, part, width, sums):
        for row in range(count):
            place = first + row
            left = place % window.out_width * window.stride_x - window.left
            place //= window.out_width
            top = place % window.out_height * window.stride_y - window.top
            image = place // window.out_height * window.height
            target = sums + 4 * GROUP * row
            if width < LANES:
                line = int32_at(target, GROUP)
                for i in range(width):
                    channel = part * GROUP + i
                    line[i] = np.int32(single(source, top, left, image, window, taps, taps_step,
                                              channel, element_int32(bias + 4 * channel)))
                continue
            at = 0
            while True:  # the last vector reaches back over channels that are done
                channel = part * GROUP + at
                store_int32(target + 4 * at, lanes(
                    source, top, left, image, window, taps, taps_step, channel,
                    load_int32(bias + 4 * channel)))
                if at + LANES >= width:
                    break
                at = min(at + LANES, width - LANES)

    return block_sums


@njit
def _product_int8(values, taps):
    return widen(load_int8(values) * load_int16(taps))  # at most 2**14


@njit
def _product_int16(values, taps):
    return widen(load_int16(values)) * widen(load_int16(taps))


@njit
def _single_int8(value, tap):
    return element_int8(value) * element_int16(tap)


@njit
def _single_int16(value, tap):
    return element_int16(value) * element_int16(tap)


sums_int8 = _block_sums(1, _product_int8, _single_int8)
sums_int16 = _block_sums(2, _product_int16, _single_int16)

DEPTHWISE = types.void(
    INT, INT, INT, INT, types.NamedUniTuple(INT, len(Window._fields), Window), types.int16[:, ::1],
    types.int32[::1], SCALES, RANGE, INT, INT, SCALES, RANGE, INT, INT)


@compiled(DEPTHWISE)
def depthwise(start, stop, source, source_bytes, window, taps, bias, scales, result_range,
              residual, residual_bytes, residual_scales, residual_range, out, out_bytes):
    """Pixels ``start`` to ``stop`` of the result.

    Args:
        source, source_bytes: Address of the input; bytes of an element.
        window (Window): Where a pixel's values lie.
        taps: (pixels of the window, parts * GROUP) int16: the weight, a row a pixel.
        bias: (parts * GROUP), what the accumulators begin with.
        scales, result_range, residual, ...: As of :func:`product_loops.product`, of one group.
        out, out_bytes: Address of the result (pixels, channels); bytes of an element.
    """
    channels, taps_step = window.channels, taps.shape[1]
    sums = np.empty((BLOCK, GROUP), np.int32)
    sums_at, taps_at, bias_at = sums.ctypes.data, taps.ctypes.data, bias.ctypes.data
    for first in range(start, stop, BLOCK):
        count = min(BLOCK, stop - first)
        for part in range(scales.shape[0]):
            width = min(GROUP, channels - part * GROUP)
            if source_bytes == 1:
                sums_int8(source, first, count, window, taps_at, taps_step, bias_at, part, width,
                          sums_at)
            else:
                sums_int16(source, first, count, window, taps_at, taps_step, bias_at, part, width,
                           sums_at)
            place = first * channels + part * GROUP
            if residual_bytes:
                include_residual(sums_at, count, width,
                                 residual_scales.ctypes.data + 12 * part * GROUP, residual_range,
                                 residual + place * residual_bytes, residual_bytes, channels)
            finish(sums_at, count, width, scales.ctypes.data + 12 * part * GROUP, result_range,
                   out + place * out_bytes, out_bytes, channels)
