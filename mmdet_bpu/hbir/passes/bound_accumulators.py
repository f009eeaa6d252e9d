"""Integer weights and biases, and no accumulator that can leave int32.

For each output channel the largest accumulator is ``sum|w| * max|x| + |bias| + max|residual|``.
Where it exceeds ``2**31 - 1`` the channel's weight scale is enlarged until it does not, and a
note says so.
"""
import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import constant_array, site_of
from mmdet_bpu.hbir.passes.conversion import (MOVEMENT, Conversion, IntType, Product,
                                              QuantizedConstant)
from mmdet_bpu.program.dtypes import largest_magnitude

# Residuals are rescaled by a 15-bit multiplier and rounded: leave room for both.
INT32_ROOM = (2**31 - 1) * (1 - 2.0**-14) - 2
MAX_GUARD_BITS = 8
_ATTEMPTS = 8


def _bounds(product: Product, conversion: Conversion, input_type: IntType) -> np.ndarray:
    """Largest accumulator per output channel, as float64 (exact enough above 2**31)."""
    magnitude = np.abs(product.weight.astype(np.int64)).reshape(len(product.weight), -1).sum(1)
    total = magnitude * float(largest_magnitude(input_type.dtype)) + np.abs(product.bias)
    if product.residual is not None:
        residual = conversion.integer(product.residual, product.op)
        ratio = residual.scale / (input_type.scale * product.weight_scale)
        total = total + largest_magnitude(residual.dtype) * ratio
    return total


def bound_product(product: Product, conversion: Conversion) -> None:
    """Fill weight, scales and bias of one product; enlarge scales where it must."""
    op = product.op
    input_type = conversion.integer(op.operands[0], op)
    constant = conversion.constants.get(op.operands[1])
    if constant is None:
        raise BpuError(f'{site_of(op)}: the weight must be a constant with a fake quantizer')
    bias = np.zeros(len(constant.data)) if len(op.operands) < 3 \
        else constant_array(op.operands[2]).astype(np.float64)
    if not np.isfinite(bias).all():
        raise BpuError(f'{site_of(op)}: expected finite biases, found '
                       f'{bias[~np.isfinite(bias)][0]} in channel '
                       f'{int(np.flatnonzero(~np.isfinite(bias))[0])}')
    scale = np.broadcast_to(np.asarray(constant.scale, np.float64), bias.shape).copy()
    original = scale.copy()
    for _ in range(_ATTEMPTS):
        product.weight_scale = scale.astype(np.float32).astype(np.float64)
        product.weight = QuantizedConstant(constant.data, constant.dtype,
                                           product.weight_scale).integers()
        product.bias = np.rint(bias / (input_type.scale * product.weight_scale))
        bounds = _bounds(product, conversion, input_type)
        over = bounds > INT32_ROOM
        if not over.any():
            break
        scale = np.where(over, scale * (bounds / INT32_ROOM) * 1.0001, scale)
    else:
        raise BpuError(f'{site_of(op)}: no weight scale keeps channel {int(np.argmax(bounds))} '
                       'within int32; give its input a larger scale')
    product.bias = product.bias.astype(np.int32)
    enlarged = np.flatnonzero(scale != original)
    if enlarged.size:
        conversion.notes.append(
            dict(site=site_of(op), rule='bound_accumulators', channels=enlarged.tolist(),
                 largest_factor=float((scale / original).max()),
                 text=f'weight scale of {enlarged.size} channels enlarged to keep the '
                 'accumulator within int32'))
    if product.out is None:
        product.out = _accumulator_type(product, conversion, input_type)


def _accumulator_type(product: Product, conversion: Conversion, input_type: IntType) -> IntType:
    """One scale for an si32 result: that of the coarsest channel, with guard bits that fit."""
    scales = input_type.scale * product.weight_scale
    largest = (_bounds(product, conversion, input_type) * scales / scales.max()).max()
    guard = int(np.clip(np.floor(np.log2(INT32_ROOM / max(largest, 1.0))), 0, MAX_GUARD_BITS))
    return IntType('si32', float(np.float32(scales.max() / 2**guard)))


def bound_accumulators(conversion: Conversion) -> None:
    """Fill the integers of every product."""
    for product in conversion.products.values():
        bound_product(product, conversion)
        if product.out.dtype == 'si32':
            conversion.integers[product.op.results[0]] = product.out
    _propagate_accumulators(conversion)


def _propagate_accumulators(conversion: Conversion) -> None:
    for op in conversion.operations():
        if op.name in MOVEMENT and op.results[0] not in conversion.integers:
            source = conversion.integers.get(op.operands[MOVEMENT[op.name]])
            if source is not None and source.dtype == 'si32':
                conversion.integers[op.results[0]] = source
