"""32-bit integer arithmetic for compiled loops.

numba widens ``int32 * int32`` to 64 bits, and then half as many lanes fit a vector. These wrap
around modulo 2**32 and vectorize; a shift takes its amount modulo 32.
"""
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _operation(name: str, emit):
    """A numba intrinsic of two int32 that gives an int32."""

    def operation(_, left, right):
        if left != types.int32 or right != types.int32:
            return None
        return types.int32(types.int32, types.int32), (
            lambda context, builder, signature, values: emit(builder, *values))

    operation.__name__ = name
    return intrinsic(operation)


def _amount(builder, value):
    return builder.and_(value, ir.Constant(value.type, 31))


add = _operation('add', lambda builder, a, b: builder.add(a, b))
sub = _operation('sub', lambda builder, a, b: builder.sub(a, b))
mul = _operation('mul', lambda builder, a, b: builder.mul(a, b))
bits_and = _operation('bits_and', lambda builder, a, b: builder.and_(a, b))
bits_or = _operation('bits_or', lambda builder, a, b: builder.or_(a, b))
shift_left = _operation('shift_left', lambda builder, a, b: builder.shl(a, _amount(builder, b)))
shift_right = _operation('shift_right',
                         lambda builder, a, b: builder.ashr(a, _amount(builder, b)))
shift_right_unsigned = _operation(
    'shift_right_unsigned', lambda builder, a, b: builder.lshr(a, _amount(builder, b)))
least = _operation('least', lambda builder, a, b: builder.select(
    builder.icmp_signed('<', a, b), a, b))
largest = _operation('largest', lambda builder, a, b: builder.select(
    builder.icmp_signed('>', a, b), a, b))
