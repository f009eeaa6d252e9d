"""Vectors of 16 integers in compiled loops.

Sums of products of int8 pixels, carried in int16 and int32, are what LLVM's own vectorizer does
worst: it takes the widest type of a loop for all of it. Here each type keeps its width. A processor
with longer or shorter registers gets as many of them as it takes.

    total = widen(load_int8(address) * splat(weight)) + wide
    store_int16(address, narrow(total >> splat_wide(8)))

Addresses are those of numpy (``array.ctypes.data``) or torch (``tensor.data_ptr()``), in bytes, of
any alignment.
"""
import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
ELEMENT = {bits: ir.IntType(bits) for bits in (8, 16, 32)}
VECTOR = {bits: ir.VectorType(ELEMENT[bits], LANES) for bits in (8, 16, 32)}


class Lanes(types.Type):
    """Numba's type of 16 integers of ``bits`` bits."""

    def __init__(self, bits: int) -> None:
        super().__init__(f'Lanes({bits})')
        self.bits = bits


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """Held in registers."""

    def __init__(self, manager, kind: Lanes) -> None:
        super().__init__(manager, kind, VECTOR[kind.bits])


INT16, INT32 = Lanes(16), Lanes(32)


def _define_operator(symbol, instruction: str) -> None:
    """``symbol`` of two vectors of one type: element by element, modulo 2**bits."""
    cases = [signature(kind, kind, kind) for kind in (INT16, INT32)]
    infer_global(symbol)(type(f'Lanes_{instruction}', (ConcreteTemplate, ), {'cases': cases}))

    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)

    for kind in (INT16, INT32):
        lower_builtin(symbol, kind, kind)(lower)


for _symbol, _instruction in ((operator.add, 'add'), (operator.sub, 'sub'), (operator.mul, 'mul'),
                              (operator.and_, 'and_'), (operator.rshift, 'ashr')):
    _define_operator(_symbol, _instruction)


def _splat(builder, number, bits: int):
    single = builder.insert_element(ir.Constant(VECTOR[bits], ir.Undefined),
                                    builder.trunc(number, ELEMENT[bits]), ir.IntType(32)(0))
    return builder.shuffle_vector(single, single, ir.Constant(VECTOR[32], [0] * LANES))


def _pointer(builder, address, bits: int):
    return builder.inttoptr(address, VECTOR[bits].as_pointer())


def _loaded(builder, address, bits: int):
    vector = builder.load(_pointer(builder, address, bits))
    vector.align = 1
    return vector


def _stored(context, builder, address, vector, bits: int):
    builder.store(vector, _pointer(builder, address, bits)).align = 1
    return context.get_dummy_value()


@intrinsic
def splat(typing, number):
    """An integer of the loop in every lane, in int16."""
    return INT16(types.int64), lambda _, builder, sig, args: _splat(builder, args[0], 16)


@intrinsic
def splat_wide(typing, number):
    """An integer of the loop in every lane, in int32."""
    return INT32(types.int64), lambda _, builder, sig, args: _splat(builder, args[0], 32)


@intrinsic
def widen(typing, lanes):
    """int16 to int32."""
    return INT32(INT16), lambda _, builder, sig, args: builder.sext(args[0], VECTOR[32])


@intrinsic
def narrow(typing, lanes):
    """The low 16 bits of int32."""
    return INT16(INT32), lambda _, builder, sig, args: builder.trunc(args[0], VECTOR[16])


@intrinsic
def high_product(typing, lhs, rhs):
    """``lhs * rhs >> 16`` of int16."""

    def lower(context, builder, sig, args):
        wide = [builder.sext(each, VECTOR[32]) for each in args]
        high = builder.ashr(builder.mul(*wide), ir.Constant(VECTOR[32], [16] * LANES))
        return builder.trunc(high, VECTOR[16])

    return INT16(INT16, INT16), lower


@intrinsic
def larger(typing, lhs, rhs):
    """The larger of two in each lane of int16."""

    def lower(context, builder, sig, args):
        return builder.select(builder.icmp_signed('>', *args), *args)

    return INT16(INT16, INT16), lower


@intrinsic
def saturated(typing, lanes):
    """int16 clamped to the range of int8."""

    def lower(context, builder, sig, args):
        value = args[0]
        for limit, beyond in ((127, '>'), (-128, '<')):
            end = ir.Constant(VECTOR[16], [limit] * LANES)
            value = builder.select(builder.icmp_signed(beyond, value, end), end, value)
        return value

    return INT16(INT16), lower


@intrinsic
def saturated_wide(typing, lanes):
    """int32 clamped to the range of int8, in int16."""

    def lower(context, builder, sig, args):
        value = args[0]
        for limit, beyond in ((127, '>'), (-128, '<')):
            end = ir.Constant(VECTOR[32], [limit] * LANES)
            value = builder.select(builder.icmp_signed(beyond, value, end), end, value)
        return builder.trunc(value, VECTOR[16])

    return INT16(INT32), lower


@intrinsic
def load_int8(typing, address):
    """16 bytes as int16."""

    def lower(context, builder, sig, args):
        return builder.sext(_loaded(builder, args[0], 8), VECTOR[16])

    return INT16(types.int64), lower


@intrinsic
def load_int16(typing, address):
    """16 half words."""
    return INT16(types.int64), lambda _, builder, sig, args: _loaded(builder, args[0], 16)


@intrinsic
def load_int32(typing, address):
    """16 words."""
    return INT32(types.int64), lambda _, builder, sig, args: _loaded(builder, args[0], 32)


@intrinsic
def store_int32(typing, address, lanes):
    """16 words."""
    return types.void(types.int64, INT32), lambda context, builder, sig, args: _stored(
        context, builder, *args, 32)


@intrinsic
def store_int8(typing, address, lanes):
    """The low bytes of int16."""

    def lower(context, builder, sig, args):
        return _stored(context, builder, args[0], builder.trunc(args[1], VECTOR[8]), 8)

    return types.void(types.int64, INT16), lower


@intrinsic
def store_int16(typing, address, lanes):
    """16 half words."""
    return types.void(types.int64, INT16), lambda context, builder, sig, args: _stored(
        context, builder, *args, 16)


@intrinsic
def store_float32(typing, address, lanes):
    """int32 as float32: exact up to 2**24."""

    def lower(context, builder, sig, args):
        vector = ir.VectorType(ir.FloatType(), LANES)
        pointer = builder.inttoptr(args[0], vector.as_pointer())
        builder.store(builder.sitofp(args[1], vector), pointer).align = 4
        return context.get_dummy_value()

    return types.void(types.int64, INT32), lower


def _loads_element(bits: int):
    """An intrinsic: the integer of ``bits`` bits at an address, as int64."""

    def lower(context, builder, sig, args):
        number = builder.load(builder.inttoptr(args[0], ELEMENT[bits].as_pointer()))
        number.align = 1
        return builder.sext(number, ir.IntType(64))

    def element(typing, address):
        return types.int64(types.int64), lower

    return intrinsic(element)


def _stores_element(bits: int):
    """An intrinsic: the low ``bits`` bits of an integer go to an address."""

    def lower(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], ELEMENT[bits].as_pointer())
        builder.store(builder.trunc(args[1], ELEMENT[bits]), pointer).align = 1
        return context.get_dummy_value()

    def store_element(typing, address, number):
        return types.void(types.int64, types.int64), lower

    return intrinsic(store_element)


element_int8, element_int16, element_int32 = map(_loads_element, (8, 16, 32))
store_element_int8, store_element_int16 = _stores_element(8), _stores_element(16)
