"""What integers stand for, computed exactly: the operations between two roundings in float64.

float64 holds what a scale times an int32 accumulator is to 2**-53 of it, so beside half an LSB its
own rounding does not count (:data:`ROOM`).
"""
from typing import Dict, List, Tuple

from torch import Tensor
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT
from mmdet_bpu.hbir.reference import evaluate, evaluate_value, integers_and_scale
from mmdet_bpu.program.dtypes import integer_range

ROOM = 2.0**-20
"""LSB that the roundings of float64 are given."""

Integers = Dict[SSAValue, Tuple[Tensor, float]]
"""Value -> its integers and the scale that they count in."""


def exact_operation(op: Operation, operands: List[Tensor], quantize: bool = True) -> List[Tensor]:
    """Results of an operation in float64; a constant keeps the integers that training gave it."""
    if op.name == FAKE_QUANT and quantize:
        integers, scale = integers_and_scale(op, operands[0].float())
        return [integers.double() * scale.double()]
    results = evaluate(op, operands, quantize)
    return [r.double() if r.is_floating_point() else r for r in results]


def exact_value(value: SSAValue, integers: Integers) -> Tensor:
    """``value`` in float64 from the integers that it depends on."""
    known = {v: tensor.double() * scale for v, (tensor, scale) in integers.items()}
    return evaluate_value(value, known, run=exact_operation)


def in_lsb(real: Tensor, scale: float, dtype: str) -> Tensor:
    """``real / scale``, cut to the range of a type as a saturating rounding would."""
    return (real.double() / scale).clamp(*integer_range(dtype))
