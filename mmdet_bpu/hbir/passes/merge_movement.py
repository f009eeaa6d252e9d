"""Chains of reshapes and transposes of the integer module become as short as they can be.

    reshape(reshape(%x))                 ->   reshape(%x)
    transpose(transpose(%x))             ->   transpose(%x), dims composed
    transpose(reshape(transpose(%x)))    ->   reshape(transpose(%x)), where what the reshape
                                              merges or splits stays together
    transpose(%x), only ones change places   ->   reshape(%x)
    reshape or transpose to the same     ->   %x

Elements and their order in the result are the same; what nothing reads any more is left for
``drop_unused``.
"""
from typing import Optional, Sequence

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.attributes import make_attribute
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS
from mmdet_bpu.hbir.builder import attrs_of, operations
from mmdet_bpu.hbir.layout import reshaped, stored_shape
from mmdet_bpu.hbir.passes.conversion import Conversion
from mmdet_bpu.hbir.types import value_type

RESHAPE, TRANSPOSE = 'bpu.reshape', 'bpu.transpose'


def _made_by(value: SSAValue, name: str) -> Optional[Operation]:
    op = value.owner
    return op if isinstance(op, Operation) and op.name == name else None


def _insert(before: Operation, name: str, x: SSAValue, attrs: dict,
            shape: Sequence[int]) -> SSAValue:
    """A reshape or transpose of ``x`` with the site of the op before which it goes."""
    properties = {key: make_attribute('ints', list(value)) for key, value in attrs.items()}
    if 'site' in before.properties:
        properties['site'] = before.properties['site']
    type_ = TensorType(x.type.element_type, list(shape))
    op = BPU_OPS[name].create(operands=[x], properties=properties, result_types=[type_])
    before.parent.insert_op_before(op, before)
    op.verify()
    return op.results[0]


def _reshape(before: Operation, x: SSAValue, shape: Sequence[int]) -> SSAValue:
    source = _made_by(x, RESHAPE)
    x = x if source is None else source.operands[0]
    if value_type(x).shape == tuple(shape):
        return x
    return _insert(before, RESHAPE, x, dict(shape=shape), shape)


def _transpose(before: Operation, x: SSAValue, dims: Sequence[int]) -> SSAValue:
    source = _made_by(x, TRANSPOSE)
    if source is not None:
        inner = attrs_of(source)['dims']
        x, dims = source.operands[0], [inner[d] for d in dims]
    shape = value_type(x).shape
    result = [shape[d] for d in dims]
    moved = [d for d in dims if shape[d] != 1]
    if moved == sorted(moved):
        return _reshape(before, x, result)
    return _insert(before, TRANSPOSE, x, dict(dims=dims), result)


def _through_reshape(op: Operation) -> Optional[SSAValue]:
    """``transpose(reshape(transpose(x)))`` with one transpose, or None."""
    middle = _made_by(op.operands[0], RESHAPE)
    if middle is None or _made_by(middle.operands[0], TRANSPOSE) is None:
        return None
    inner, outer = value_type(middle.operands[0]).shape, value_type(middle.results[0]).shape
    order = reshaped(outer, inner, tuple(attrs_of(op)['dims']))
    if order is None:
        return None
    moved = _transpose(op, middle.operands[0], order)
    return _reshape(op, moved, stored_shape(outer, tuple(attrs_of(op)['dims'])))


def _shorter(op: Operation) -> Optional[SSAValue]:
    """The result of a movement made with fewer of them, or None if it is as short as can be."""
    x, result = op.operands[0], value_type(op.results[0]).shape
    if op.name == RESHAPE:
        if value_type(x).shape == result or _made_by(x, RESHAPE):
            return _reshape(op, x, result)
        return None
    dims = attrs_of(op)['dims']
    shape = value_type(x).shape
    moved = [d for d in dims if shape[d] != 1]
    if _made_by(x, TRANSPOSE) or moved == sorted(moved):
        return _transpose(op, x, dims)
    return _through_reshape(op)


def merge_movement(conversion: Conversion) -> None:
    """Rewrite ``result`` in place; ``emitted`` follows."""
    replaced = {}
    for op in list(operations(conversion.result)):
        if op.name not in (RESHAPE, TRANSPOSE):
            continue
        shorter = _shorter(op)
        if shorter is not None:
            op.results[0].replace_all_uses_with(shorter)
            replaced[op.results[0]] = shorter
            op.detach()
            op.erase()
    conversion.emitted = {value: replaced.get(ssa, ssa)
                          for value, ssa in conversion.emitted.items()}
