"""Where the contract lets the integers of a composite lie, element by element.

Interval arithmetic on the exact operations, from the integers that enter the composite: at each
rounding inside, both ends move out by that op's bound (:mod:`mmdet_bpu.analysis.op_bounds`) and
are rounded. So it shows what a difference of 1 LSB inside becomes at the end: an exponential,
a reciprocal of a small sum multiply it.
"""
import math
from typing import Callable, Dict, List, NamedTuple, Optional

import torch
from torch import Tensor
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.analysis.exact_values import ROOM, Integers, exact_operation, in_lsb
from mmdet_bpu.analysis.op_bounds import contract_bound
from mmdet_bpu.hbir.builder import constant_array
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT, MOVEMENT, Conversion
from mmdet_bpu.hbir.reference import evaluate_value

RISING = ('hbir.add', 'hbir.reduce_sum', 'hbir.reduce_mean', 'hbir.exp', 'hbir.sqrt', 'hbir.max',
          'hbir.min', 'hbir.relu', 'hbir.clip', 'hbir.sigmoid')
"""Operations that grow with each of their operands, beside those that move integers."""


class Interval(NamedTuple):
    """Ends of where each element lies, float64; equal where it is known."""
    low: Tensor
    high: Tensor


def _hull(*candidates: Tensor) -> Interval:
    """Smallest interval around results of a function at the ends of its operands."""
    stacked = torch.stack(torch.broadcast_tensors(*candidates))
    return Interval(stacked.amin(0), stacked.amax(0))


def _difference(op: Operation, a: Interval, b: Interval) -> Interval:
    return Interval(a.low - b.high, a.high - b.low)


def _multiplied(op: Operation, a: Interval, b: Interval) -> Interval:
    if op.operands[0] is op.operands[1]:
        low, high = _hull(a.low**2, a.high**2)
        return Interval(torch.where((a.low < 0) & (a.high > 0), 0.0, low), high)
    return _hull(*(left * right for left in a for right in b))


def _reciprocal(op: Operation, x: Interval) -> Interval:
    """Anything where x may have either sign."""
    crossing = (x.low <= 0) & (x.high >= 0)
    return Interval(torch.where(crossing, -math.inf, 1 / x.high),
                    torch.where(crossing, math.inf, 1 / x.low))


def _rsqrt(op: Operation, x: Interval) -> Interval:
    return Interval(x.high.clamp(min=0).rsqrt(), x.low.clamp(min=0).rsqrt())


def _falling(op: Operation, x: Interval) -> Interval:
    low, high = (exact_operation(op, [end])[0] for end in (x.high, x.low))
    return Interval(low, high)


OTHER: Dict[str, Callable[..., Interval]] = {
    'hbir.sub': _difference,
    'hbir.mul': _multiplied,
    'hbir.reciprocal': _reciprocal,
    'hbir.rsqrt': _rsqrt,
    'hbir.neg': _falling,
}


class _Intervals:
    """Evaluates operations on intervals, roundings included."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion

    def run(self, op: Operation, operands: List[Interval], quantize: bool) -> List[Interval]:
        """Results of one operation; see :func:`mmdet_bpu.hbir.reference.evaluate`."""
        if op.name == FAKE_QUANT and constant_array(op.operands[0]) is None:
            return [self._rounded(op.results[0], *operands)]
        if op.name in OTHER:
            return [OTHER[op.name](op, *operands)]
        if op.name == 'hbir.constant':
            return [Interval(value, value) for value in exact_operation(op, [])]
        if op.name not in (FAKE_QUANT, *RISING, *MOVEMENT):
            raise _Unknown
        return list(map(Interval, *(exact_operation(op, list(ends)) for ends in zip(*operands))))

    def _rounded(self, value: SSAValue, x: Interval) -> Interval:
        type_ = self.conversion.integers[value]
        bound = contract_bound(self.conversion, value)
        low, high = (in_lsb(end, type_.scale, type_.dtype) for end in x)
        ends = low - bound.at(low) - ROOM, high + bound.at(high) + ROOM
        return Interval(*(in_lsb(end.round(), 1.0, type_.dtype) * type_.scale for end in ends))


class _Unknown(Exception):
    """An operation whose direction is not known."""


def contract_interval(conversion: Conversion, output: SSAValue,
                      integers: Integers) -> Optional[Interval]:
    """Where the integers of ``output`` may lie, given those that it is computed from.

    Args:
        conversion (Conversion): That made the integer form.
        output (SSAValue): Rounded value that leaves a composite.
        integers (dict): See :func:`mmdet_bpu.analysis.exact_values.exact_value`.

    Returns:
        Interval | None: In LSB; None where an operation inside has no interval form.
    """
    known = {}
    for value, (tensor, scale) in integers.items():
        known[value] = Interval(*[tensor.double() * scale] * 2)
    try:
        found = evaluate_value(output, known, run=_Intervals(conversion).run)
    except _Unknown:
        return None
    type_ = conversion.integers[output]
    return Interval(*(in_lsb(end, type_.scale, type_.dtype).round() for end in found))
