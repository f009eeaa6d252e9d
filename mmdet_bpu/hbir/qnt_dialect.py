"""The ``qnt`` dialect: fake quantization as the vendor's compiler prints it, quantized types.

::

    %1 = "qnt.const_fake_quant"(%0) <{bits = 8 : i64, illegal = true, max = [12.7], min = [-12.8],
        narrowRange = false}> : (tensor<1x4xf32>) -> tensor<1x4xf32>

``min = -2**(bits-1) x scale`` and ``max = (2**(bits-1) - 1) x scale`` (with ``narrowRange``, min is
-max): one of each for the tensor, or one per slice along ``axis``.
"""
import numpy as np
from xdsl.ir import Attribute, Dialect, Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.attributes import make_attribute, plain_value
from mmdet_bpu.hbir.dialect import op_class, parse_table
from mmdet_bpu.hbir.types import UniformQuantizedType
from mmdet_bpu.program.dtypes import ELEMENT_TYPES, integer_range

FAKE_QUANT_BITS = tuple(row.bits for row in ELEMENT_TYPES.values() if row.low < 0)
"""Widths that the integer form has a type for."""

TABLE = '''
const_fake_quant = input: f32 -> output: f32 {bits: i64, illegal?: bool, max: f64s, min: f64s,
    narrowRange?: bool, axis?: i64}
'''


def _verify_fake_quant(op: Operation) -> None:
    if op.operands[0].type != op.results[0].type:
        raise VerifyException(f'input is of {op.operands[0].type}, output of {op.results[0].type}')
    bits = plain_value(op.properties['bits'])
    if bits not in FAKE_QUANT_BITS:
        raise VerifyException(f'bits is one of {FAKE_QUANT_BITS}, found {bits}')
    low, high = np.array(plain_value(op.properties['min'])), plain_value(op.properties['max'])
    shape, count = op.operands[0].type.get_shape(), 1
    if 'axis' in op.properties:
        axis = plain_value(op.properties['axis'])
        if not 0 <= axis < len(shape):
            raise VerifyException(f'axis {axis} is not an axis of {op.operands[0].type}')
        count = shape[axis]
    if not len(low) == len(high) == count:
        raise VerifyException(f'expected {count} values in min and max, found {len(low)} '
                              f'and {len(high)}')
    if not ((low < 0) & (np.array(high) > 0) & np.isfinite(low) & np.isfinite(high)).all():
        raise VerifyException('expected finite ranges with min < 0 < max')


ConstFakeQuantOp = op_class('qnt', parse_table(TABLE, {})['const_fake_quant'],
                            verify=_verify_fake_quant)

Qnt = Dialect('qnt', [ConstFakeQuantOp], [UniformQuantizedType])


def fake_quant_properties(bits: int, scale: float | np.ndarray, axis: int | None = None,
                          narrow: bool = False) -> dict[str, Attribute]:
    """Properties of a ``qnt.const_fake_quant``.

    Args:
        bits: 8, 16 or 32.
        scale: One positive scale, or one per slice along ``axis``, rounded to float32 first.
        axis: Axis of the scales, None for one scale.
        narrow: Leave out the lowest integer.

    Raises:
        BpuError: A scale is not positive and finite.
    """
    scales = np.atleast_1d(np.asarray(scale, np.float32)).astype(np.float64)
    if not ((scales > 0) & np.isfinite(scales)).all():
        raise BpuError(f'a fake quantizer needs positive finite scales, found {scale}')
    if bits not in FAKE_QUANT_BITS:
        raise BpuError(f'bits is one of {FAKE_QUANT_BITS}, found {bits}')
    low, high = fake_quant_range(bits, narrow)
    plain = dict(bits=bits, illegal=True, max=scales * high, min=scales * low, narrowRange=narrow)
    if axis is not None:
        plain['axis'] = axis
    return {name: make_attribute(ConstFakeQuantOp.spec.attributes[name][0], plain[name])
            for name in sorted(plain)}


def fake_quant_scale(op: Operation) -> tuple[int, float | np.ndarray, int | None]:
    """Bits, scale (float, or float64 array along the axis) and axis of a fake quantizer.

    The scale is the float32 that the range was made of: the range divided by its number of
    steps, rounded to float32.
    """
    plain = {name: plain_value(value) for name, value in op.properties.items()}
    low, high = fake_quant_range(plain['bits'], plain.get('narrowRange', False))
    span = np.array(plain['max']) - np.array(plain['min'])
    scales = (span / (high - low)).astype(np.float32).astype(np.float64)
    axis = plain.get('axis')
    return plain['bits'], float(scales[0]) if axis is None else scales, axis


def fake_quant_range(bits: int, narrow: bool = False) -> tuple[int, int]:
    """Lowest and highest integer that a fake quantizer of ``bits`` bits rounds to."""
    low, high = integer_range(f'si{bits}')
    return low + bool(narrow), high
