"""Read the fake quantizers: which values are integers, of which type and scale.

    %y = qnt.const_fake_quant(%x)          %y: integers, scale from min and max
    %z = hbir.reshape(%y)                  %z: the same integers
    %w = hbir.mul(%y, 0.5)                 %w: the same integers, scale x 0.5 (not rounded again)
"""
import numpy as np
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.builder import constant_array
from mmdet_bpu.hbir.passes.conversion import (FAKE_QUANT, MOVEMENT, Conversion, IntType,
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


def _propagate(conversion: Conversion, op: Operation) -> None:
    result, source = op.results[0], None
    if op.name in MOVEMENT:
        source = conversion.integers.get(op.operands[MOVEMENT[op.name]])
        if source is None and op.name == 'hbir.concat':
            known = [v for v in op.operands if v in conversion.integers]
            source = conversion.integers[known[0]] if known else None
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
