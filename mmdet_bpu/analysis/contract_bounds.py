"""How far the contract lets integers be from the exact value, op by op, in LSB of the result.

The exact value ``r`` of an op is what its operation in HBIR gives for the real numbers that its
integers stand for, cut to the result's range. The integer op computes ``v`` instead, with ratios
of scales that have 15 bits, sides of a sum that are rounded at their guard bits, biases that count
in units of the accumulator, tables, samples; then it rounds ``v``. For each op, a bound of
``|v - r|`` follows from its own numbers:

    |v - r| <= relative * |r| + absolute,     |integer - r| <= 1/2 + relative * |r| + absolute

Scales, ratios and multipliers are compared as fractions. Where an exact result beyond the limit is
cut, ``v`` is beyond it too, or no further from it than that of a result at the limit would be.
``docs/numerics.md`` has the formulas.
"""
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Callable, Dict

import numpy as np
from torch import Tensor
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.builder import attrs_of
from mmdet_bpu.hbir.passes.conversion import Conversion, IntType
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.dtypes import integer_range, largest_magnitude
from mmdet_bpu.program.resize_positions import axis_positions
from mmdet_bpu.program.table_fit import MAX_SEGMENTS, expand_table

HALF = Fraction(1, 2)
STEEPEST = 255  # LSB per px between two si8 pixels


@dataclass(frozen=True)
class Bound:
    """``relative * |r| + absolute``, in LSB of the result."""
    relative: Fraction = Fraction(0)
    absolute: Fraction = Fraction(0)

    def at(self, exact: Tensor) -> Tensor:
        """Bound of each element, for exact values in LSB."""
        return exact.abs() * float(self.relative) + float(self.absolute)


@dataclass(frozen=True)
class Side:
    """Integers that enter an op: their scale and their largest magnitude."""
    scale: Fraction
    largest: int


@dataclass(frozen=True)
class Rounding:
    """One rounding in both forms.

    Attributes:
        conversion (Conversion): That made one form of the other.
        quantizer (Operation): The fake quantizer.
        op (Operation): The ``hbir`` operation that it rounds.
        attrs (dict): Of the ``bpu`` operation.
        out (IntType): Of the result.
    """
    conversion: Conversion
    quantizer: Operation
    op: Operation
    attrs: dict
    out: IntType

    @property
    def scale(self) -> Fraction:
        """Of the result."""
        return Fraction(self.out.scale)

    def side(self, index: int) -> Side:
        """An operand."""
        value = self.op.operands[index]
        constant = self.conversion.constants.get(value)
        type_ = self.conversion.integer(value, self.op)
        largest = largest_magnitude(type_.dtype) if constant is None \
            else int(np.abs(constant.integers().astype(np.int64)).max(initial=0))
        return Side(Fraction(type_.scale), largest)

    def applied(self, prefix: str = '', channel: int = 0) -> Fraction:
        """``multiplier / 2**shift``."""
        return Fraction(self.attrs[f'{prefix}multiplier'][channel]) \
            / Fraction(2)**int(self.attrs[f'{prefix}shift'][channel])


def rounding_of(conversion: Conversion, value: SSAValue) -> Rounding:
    """The rounding whose result is ``value``."""
    quantizer = value.owner
    if quantizer in conversion.products:
        op = conversion.products[quantizer].op
    else:
        op = quantizer.operands[0].owner
        if op.name == 'hbir.relu' and op.operands[0].owner in conversion.activated:
            op = op.operands[0].owner
    return Rounding(conversion, quantizer, op, attrs_of(conversion.emitted[value].owner),
                    conversion.integers[value])


def relative(applied: Fraction, ratio: Fraction) -> Fraction:
    """Error of a ratio in parts of it."""
    return abs(applied / ratio - 1)


def is_whole(ratio: Fraction) -> bool:
    """Whether a rescaled integer needs no rounding."""
    return ratio.denominator == 1


def _rescaled(ratio_of: Callable[[Rounding], Fraction]) -> Callable[[Rounding], Bound]:
    """A value that is exact in integers, times one ratio."""
    return lambda r: Bound(relative(r.applied(), ratio_of(r)))


def _ratio_of_product(r: Rounding) -> Fraction:
    return r.side(0).scale * r.side(1).scale / r.scale


def _ratio_of_reduction(r: Rounding) -> Fraction:
    shape, dims = value_type(r.op.operands[0]).shape, attrs_of(r.op)['dims']
    count = prod(shape[d] for d in dims) if r.op.name == 'hbir.reduce_mean' else 1
    return r.side(0).scale / r.scale / count


def _ratio_of_pool(r: Rounding) -> Fraction:
    return r.side(0).scale / r.scale / prod(attrs_of(r.op)['kernel'])


def _ratio_of_rescaling(r: Rounding) -> Fraction:
    source = r.quantizer.operands[0]
    known = r.conversion.moved.get(source) or r.conversion.integer(source, r.quantizer)
    return Fraction(known.scale) / r.scale


def _sum(r: Rounding) -> Bound:
    """Both sides have an error of their own, which counts even where they cancel.

    The larger side is within the result plus the smaller one. Sides of one scale have one
    multiplier, whose error is one of their sum.
    """
    unit = Fraction(2)**r.attrs['guard_bits']
    sides = []
    for index, name in enumerate(('lhs', 'rhs')):
        side, applied = r.side(index), r.applied(f'{name}_')
        ratio = side.scale / r.scale
        sides.append((side.largest * ratio, relative(applied / unit, ratio), ratio, applied))
    cut = sum(Fraction(0) if is_whole(side[3]) else HALF / unit for side in sides)
    if sides[0][2:] == sides[1][2:]:
        return Bound(sides[0][1], cut)
    (small, error, *_), (_, other_error, *_) = sorted(sides)
    return Bound(other_error, cut + (error + other_error) * small)


def _table(r: Rounding) -> Bound:
    """What the table of all inputs is off, where all its segments are used; else nothing."""
    match = r.conversion.tables[r.quantizer]
    source = r.conversion.integer(match.root, r.op)
    low, high = integer_range(source.dtype)
    segments = r.attrs.get('segment_start')
    if segments is None or len(segments) < MAX_SEGMENTS:
        return Bound()
    exact = match.evaluate(np.arange(low, high + 1) * float(source.scale)) / r.out.scale
    error = np.abs(expand_table(r.attrs) - exact.clip(*integer_range(r.out.dtype))).max()
    return Bound(absolute=max(Fraction(float(error)) - HALF, Fraction(0)))


def _sampled(r: Rounding) -> Bound:
    """Positions inside the image, or 1 px beside it, are off; the steepest slope is 255 LSB."""
    shape, grid = value_type(r.op.operands[0]).shape, r.side(1)
    fraction, total = Fraction(2)**r.attrs['fraction_bits'], Fraction(0)
    for name, size in (('x', shape[2]), ('y', shape[1])):
        error = relative(r.applied(f'{name}_'), grid.scale * size / 2 * fraction)
        total += error * Fraction(size + 1, 2) + HALF / fraction
    return Bound(absolute=STEEPEST * total)


def _resized(r: Rounding) -> Bound:
    hbir, shape = attrs_of(r.op), value_type(r.op.operands[0]).shape
    bits, total = r.attrs['fraction_bits'], Fraction(0)
    for axis, size in enumerate(shape[1:3]):
        start, step = Fraction(hbir['initialOffset'][axis]), Fraction(hbir['step'][axis])
        found = axis_positions(r.attrs['start'][axis], r.attrs['step'][axis],
                               r.attrs['size'][axis], r.attrs['position_bits'], bits, size)
        total += max(abs(Fraction(int(p), 2**bits) - min(max(start + k * step, 0), size - 1))
                     for k, p in enumerate(found))
    return Bound(absolute=STEEPEST * total)


BOUNDS: Dict[str, Callable[[Rounding], Bound]] = {
    'bpu.mul': _rescaled(_ratio_of_product),
    'bpu.matmul': _rescaled(_ratio_of_product),
    'bpu.add': _sum,
    'bpu.sub': _sum,
    'bpu.reduce_sum': _rescaled(_ratio_of_reduction),
    'bpu.avg_pool': _rescaled(_ratio_of_pool),
    'bpu.requantize': _rescaled(_ratio_of_rescaling),
    'bpu.table': _table,
    'bpu.grid_sample': _sampled,
    'bpu.resize': _resized,
}
"""``bpu`` operation -> bound of a rounding; that of products with weights has its own module."""
