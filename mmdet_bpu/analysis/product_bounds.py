"""How far the contract lets a product with weights be from the exact value, in LSB of the result.

Per output channel, with ``ratio`` the accumulator's unit over the result's scale, ``m`` what its
multiplier and shift stand for, ``e`` the relative error of ``m``, ``R`` the largest residual and
``W`` the sum of the magnitudes of the weights:

    e * (|r| + R)                                   accumulator, which cancels against a residual
    (1 + e) * |bias - its integer * ratio|          bias, in units of the accumulator
    R * error of both multipliers + m / 2           residual, rounded to such units
    (1 + e) * W * ratio * error of a sample         deformable convolution
    what enlarged weight scales changed             see ``hbir/passes/bound_accumulators.py``
"""
from fractions import Fraction
from typing import Tuple

import numpy as np

from mmdet_bpu.analysis.contract_bounds import HALF, Bound, Rounding, is_whole, relative
from mmdet_bpu.hbir.builder import attrs_of
from mmdet_bpu.hbir.passes.bound_accumulators import bias_of
from mmdet_bpu.hbir.passes.conversion import Product
from mmdet_bpu.program.deformable_samples import sample_shift
from mmdet_bpu.program.dtypes import largest_magnitude


def product_bound(r: Rounding) -> Bound:
    """Of the worst channel."""
    match = r.conversion.products[r.quantizer]
    biases = bias_of(match.op, len(match.weight)).tolist()
    channels = [_channel_bound(r, match, *facts) for facts in zip(
        range(len(biases)), biases, _weights_lost(r, match).tolist())]
    return Bound(max(bound.relative for bound in channels),
                 max(bound.absolute for bound in channels))


def _channel_bound(r: Rounding, match: Product, channel: int, bias: float, lost: float) -> Bound:
    ratio = Fraction(match.factor.scale) * Fraction(match.weight_scale[channel]) / r.scale
    applied = r.applied('', channel)
    error = relative(applied, ratio)
    inside = abs(int(match.bias[channel]) * ratio - Fraction(bias) / r.scale)
    sample = _sample_lost(r, match)
    if sample:
        inside += int(np.abs(match.weight[channel].astype(np.int64)).sum()) * ratio * sample
    residual, residual_lost = _residual(r, match, channel, applied)
    return Bound(error, error * residual + residual_lost + (1 + error) * inside + Fraction(lost))


def _residual(r: Rounding, match: Product, channel: int,
              applied: Fraction) -> Tuple[Fraction, Fraction]:
    """Largest residual and its error."""
    if match.residual is None:
        return Fraction(0), Fraction(0)
    type_ = r.conversion.integer(match.residual, match.op)
    ratio, largest = Fraction(type_.scale) / r.scale, largest_magnitude(type_.dtype)
    own = r.applied('residual_', channel)
    cut = 0 if is_whole(own) else applied / 2
    return largest * ratio, largest * abs(own * applied - ratio) + cut


def _sample_lost(r: Rounding, match: Product) -> Fraction:
    """Of one sample of a deformable convolution, in units of what weights are multiplied with.

    Its bits below the LSB are rounded away, and its position is where the offset's multiplier puts
    it: between two pixels, a sample changes by twice the largest pixel per px.
    """
    if r.op.name != 'hbir.deform_conv2d':
        return Fraction(0)
    bits = r.attrs['fraction_bits']
    shift = sample_shift(bits, match.factor.sample_bits, attrs_of(r.op)['useMask'])
    cut = HALF if shift > 0 else Fraction(0)
    offset = r.side(2)
    applied, fraction = r.applied('offset_'), Fraction(2)**bits
    position = offset.largest * abs(applied / fraction - offset.scale)
    position += 0 if is_whole(applied) else HALF / fraction
    return cut + 2 * (2 * match.factor.largest * position)


def _weights_lost(r: Rounding, match: Product) -> np.ndarray:
    """What enlarged weight scales cost each channel: its weights are not the trained ones."""
    trained = r.conversion.constants[match.op.operands[1]]
    shape = (-1, *(1, ) * (match.weight.ndim - 1))
    scales = [np.asarray(s, np.float64).reshape(shape) for s in (trained.scale, match.weight_scale)]
    difference = np.abs(trained.integers() * scales[0] - match.weight * scales[1])
    return difference.reshape(len(match.weight), -1).sum(1) \
        * match.factor.largest * match.factor.scale / r.out.scale
