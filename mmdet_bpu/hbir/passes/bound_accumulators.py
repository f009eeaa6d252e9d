"""Integer weights and biases, and no accumulator that can leave int32.

For each output channel the largest accumulator is ``sum|w| * max|x| + |bias| + max|residual|``.
Where it exceeds ``2**31 - 1`` the channel's weight scale is enlarged until it does not, and a
note says so. The samples of a deformable convolution first give up bits below the LSB.
"""
from typing import List

import numpy as np
from xdsl.ir import Operation

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, constant_array, site_of
from mmdet_bpu.hbir.passes.conversion import (MOVEMENT, Conversion, Factor, IntType, Product,
                                              QuantizedConstant)
from mmdet_bpu.program.deformable_samples import MASK_BITS, finest_sample_bits, largest_sample
from mmdet_bpu.program.dtypes import INT32_MAX, largest_magnitude
from mmdet_bpu.program.integer_rules import accumulator_bounds

# Residuals are rescaled by a 15-bit multiplier and rounded: leave room for both.
INT32_ROOM = INT32_MAX * (1 - 2.0**-14) - 2
MAX_BITS_BELOW_CHANNELS = 8  # of the one scale of an si32 result, below the coarsest channel's
DEFORM_CONV2D = 'hbir.deform_conv2d'
_ATTEMPTS = 8


def _factors(product: Product, conversion: Conversion) -> List[Factor]:
    """What the weights of a product meet: all ways to write it, the finest first."""
    op = product.op
    x = conversion.integer(op.operands[0], op)
    if op.name != DEFORM_CONV2D:
        return [Factor(x.scale, largest_magnitude(x.dtype))]
    scale = x.scale
    if attrs_of(op)['useMask']:
        scale *= conversion.integer(op.operands[3], op).scale * 2**MASK_BITS
    return [Factor(scale * 2.0**-bits, largest_sample(x.dtype, bits), bits)
            for bits in range(finest_sample_bits(product.out.dtype if product.out else 'si32'),
                              -1, -1)]


def bias_of(op: Operation, channels: int) -> np.ndarray:
    """Bias of a product in float64; zeros where it has none."""
    index = 4 if op.name == DEFORM_CONV2D else 2
    bias = np.zeros(channels) if len(op.operands) <= index \
        else constant_array(op.operands[index]).astype(np.float64)
    if not np.isfinite(bias).all():
        raise BpuError(f'{site_of(op)}: expected finite biases, found '
                       f'{bias[~np.isfinite(bias)][0]} in channel '
                       f'{int(np.flatnonzero(~np.isfinite(bias))[0])}')
    return bias


def _bounds(product: Product, conversion: Conversion) -> np.ndarray:
    """Largest accumulator per output channel, as float64 (exact enough above 2**31)."""
    magnitude = np.abs(product.weight.astype(np.int64)).reshape(len(product.weight), -1).sum(1)
    total = accumulator_bounds(magnitude.astype(np.float64), product.factor.largest, product.bias)
    if product.residual is not None:
        residual = conversion.integer(product.residual, product.op)
        ratio = residual.scale / (product.factor.scale * product.weight_scale)
        total = total + largest_magnitude(residual.dtype) * ratio
    return total


def bound_product(product: Product, conversion: Conversion) -> None:
    """Fill weight, scales, bias and factor of one product; enlarge scales where it must."""
    op = product.op
    factors = _factors(product, conversion)
    constant = conversion.constants.get(op.operands[1])
    if constant is None:
        raise BpuError(f'{site_of(op)}: the weight must be a constant with a fake quantizer')
    bias = bias_of(op, len(constant.data))
    scale = np.broadcast_to(np.asarray(constant.scale, np.float64), bias.shape).copy()
    original = scale.copy()
    for attempt in range(len(factors) - 1 + _ATTEMPTS):
        product.factor = factors[min(attempt, len(factors) - 1)]
        product.weight_scale = scale.astype(np.float32).astype(np.float64)
        product.weight = QuantizedConstant(constant.data, constant.dtype,
                                           product.weight_scale).integers()
        product.bias = np.rint(bias / (product.factor.scale * product.weight_scale))
        bounds = _bounds(product, conversion)
        over = bounds > INT32_ROOM
        if not over.any():
            break
        if product.factor is factors[-1]:
            scale = np.where(over, scale * (bounds / INT32_ROOM) * 1.0001, scale)
    else:
        raise BpuError(f'{site_of(op)}: no weight scale keeps channel {int(np.argmax(bounds))} '
                       'within int32; give its input a larger scale')
    product.bias = product.bias.astype(np.int32)
    bits, most = product.factor.sample_bits, finest_sample_bits('si8')
    if op.name == DEFORM_CONV2D and bits < most:
        conversion.notes.append(
            dict(site=site_of(op), rule='bound_accumulators', sample_bits=bits,
                 text=f'samples keep {bits} bits below their LSB, not {most}, to keep the '
                 'accumulator within int32'))
    enlarged = np.flatnonzero(scale != original)
    if enlarged.size:
        conversion.notes.append(
            dict(site=site_of(op), rule='bound_accumulators', channels=enlarged.tolist(),
                 largest_factor=float((scale / original).max()),
                 text=f'weight scale of {enlarged.size} channels enlarged to keep the '
                 'accumulator within int32'))
    if product.out is None:
        product.out = _accumulator_type(product, conversion)


def _accumulator_type(product: Product, conversion: Conversion) -> IntType:
    """One scale for an si32 result: that of the coarsest channel, with guard bits that fit."""
    scales = product.factor.scale * product.weight_scale
    largest = (_bounds(product, conversion) * scales / scales.max()).max()
    guard = int(np.clip(np.floor(np.log2(INT32_ROOM / max(largest, 1.0))), 0, MAX_BITS_BELOW_CHANNELS))
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
