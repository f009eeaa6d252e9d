"""Read the fake quantizers: which values are integers, of which type and scale.

    %y = qnt.const_fake_quant(%x)          %y: integers, scale from min and max
    %z = hbir.reshape(%y)                  %z: the same integers
    %w = hbir.mul(%y, 0.5)                 %w: the same integers, scale x 0.5 (not rounded again)
"""
from typing import Optional

import numpy as np
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.builder import constant_array
from mmdet_bpu.hbir.passes.conversion import (FAKE_QUANT, JOINS, MOVEMENT, Conversion, IntType,
                                              QuantizedConstant)
from mmdet_bpu.hbir.qnt_dialect import fake_quant_scale


def positive_scalar(value: SSAValue):
    """The number of a one-element constant if it is positive, else None."""
    array = constant_array(value)
    if array is None or array.size != 1 or array.dtype.kind != 'f' or not array.flat[0] > 0:
        return None
    return float(array.flat[0])


def _fake_quant(conversion: Conversion, op: Operation) -> None:
    bits, scale, _ = fake_quant_scale(op)
    source = op.operands[0]
    data = constant_array(source)
    dtype = f'si{bits}'
    if data is not None:
        conversion.constants[op.results[0]] = QuantizedConstant(data, dtype, scale)
        return
    conversion.rounded[source] = op
    conversion.integers[op.results[0]] = IntType(dtype, float(np.float32(scale)))


def _carried(conversion: Conversion, op: Operation) -> Optional[IntType]:
    """The integers that a data movement or a join hands on; None where it reads floats."""
    source = conversion.integers.get(op.operands[MOVEMENT[op.name]])
    if op.name not in JOINS:
        return source
    if not all(conversion.is_integer(v) or constant_array(v) is not None for v in op.operands):
        return None  # the maximum of a value and of a function of it, inside a table
    known = [conversion.integers[v] for v in op.operands if v in conversion.integers]
    return source or (known[0] if known else None)


def _propagate(conversion: Conversion, op: Operation) -> None:
    result, source = op.results[0], None
    if op.name in MOVEMENT:
        source = _carried(conversion, op)
    elif op.name == 'hbir.mul' and op.operands[0] in conversion.integers:
        factor = positive_scalar(op.operands[1])
        if factor is not None:
            source = conversion.integers[op.operands[0]]
            source = IntType(source.dtype, source.scale * factor)
    if source is not None:
        (conversion.moved if result in conversion.rounded else conversion.integers)[result] = source


def collect_scales(conversion: Conversion) -> None:
    """Fill ``integers``, ``constants`` and ``rounded``."""
    ops = conversion.operations()
    for op in ops:
        if op.name == FAKE_QUANT and constant_array(op.operands[0]) is None:
            conversion.rounded[op.operands[0]] = op
    for op in ops:
        if op.name == FAKE_QUANT:
            _fake_quant(conversion, op)
        elif op.results:
            _propagate(conversion, op)
