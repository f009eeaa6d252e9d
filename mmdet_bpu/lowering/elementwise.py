"""Lowering of elementwise operations: of two tensors, and functions of one."""
from typing import Any, Union

from xdsl.ir import SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.layout import identity
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers
from mmdet_bpu.program.functions import FUNCTIONS


@lowers('add', 'sub', 'mul', 'div', 'maximum', 'minimum')
def binary(v: LoweredValues, op: Op) -> Stored:
    """Both operands in the stored order of the one that has the result's shape."""
    shape = v.shape(op)
    rank = len(shape)
    variable = [n for n in op.inputs if not v.is_constant(n)]
    full = [v.values[n] for n in variable if v.values[n].shape == shape]
    ranked = [v.values[n] for n in variable if len(v.values[n].shape) == rank]
    order = (full or ranked)[0].order if (full or ranked) else identity(rank)
    operands = []
    for index, n in enumerate(op.inputs):
        if v.is_constant(n):
            operands.append(v.constant(op, index, order))
            continue
        stored = v.values[n]
        if len(stored.shape) < rank:
            padded = (1, ) * (rank - len(stored.shape)) + stored.shape
            stored = v.reshaped(stored, padded, op.site)
        operands.append(v.move(stored, order).ssa)
    return v.emit(hbir_name(op), operands, {}, shape, order, op.site)


@lowers('relu')
def relu(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its input."""
    x = v.values[op.inputs[0]]
    return v.emit(hbir_name(op), [x.ssa], {}, x.shape, x.order, op.site)


@lowers('scale')
def scale(v: LoweredValues, op: Op) -> Stored:
    """A product with one number."""
    x = v.values[op.inputs[0]]
    operands = [x.ssa, v.scalar(op.params['factor'])]
    return v.emit(hbir_name(op), operands, {}, x.shape, x.order, op.site)


class Writer:
    """Appends elementwise HBIR operations of one value: what a ``form`` of
    :mod:`mmdet_bpu.program.functions` is written with.

    Args:
        v (LoweredValues): The lowering's state.
        like (Stored): Shape and order of every value.
        site (str): Site of every operation.
    """

    def __init__(self, v: LoweredValues, like: Stored, site: str) -> None:
        self._v, self._like, self._site = v, like, site

    def __getattr__(self, name: str):
        def append(*operands: Union[SSAValue, float], **attrs: Any) -> SSAValue:
            values = [x if isinstance(x, SSAValue) else self._v.scalar(x) for x in operands]
            return self._v.emit(f'hbir.{name}', values, attrs, self._like.shape, self._like.order,
                                self._site).ssa

        return append


@lowers('unary')
def unary(v: LoweredValues, op: Op) -> Stored:
    """A function's own operation, or its form in operations that exist."""
    x = v.values[op.inputs[0]]
    row = FUNCTIONS.get(op.params['fn'])
    if row is None:
        raise BpuError(f'{op.site}: no integer form of {op.params["fn"]}')
    write = Writer(v, x, op.site)
    if row.form is not None:
        return Stored(row.form(write, x.ssa, op.params), x.shape, x.order)
    parameters = {name: value for name, value in op.params.items() if name != 'fn'}
    attributes = row.attributes({**(row.parameters or {}), **parameters})
    return Stored(getattr(write, row.hbir)(x.ssa, **attributes), x.shape, x.order)
