"""Lowering of data movement. A permute moves nothing: it changes the order that is known."""
from typing import List, Optional

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.layout import permuted, stored_shape, with_new_dim
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers


@lowers('reshape')
def reshape(v: LoweredValues, op: Op) -> Stored:
    """In memory as it lies, where the stored order allows."""
    return v.reshaped(v.values[op.inputs[0]], v.shape(op), op.site)


@lowers('permute')
def permute(v: LoweredValues, op: Op) -> Stored:
    """Another order of the same memory."""
    x = v.values[op.inputs[0]]
    return Stored(x.ssa, v.shape(op), permuted(x.order, op.params['dims']))


@lowers('slice')
def slice_(v: LoweredValues, op: Op) -> Stored:
    """Along one dimension."""
    x, p = v.values[op.inputs[0]], op.params
    stored = stored_shape(x.shape, x.order)
    begin, end, step = [0] * len(stored), list(stored), [1] * len(stored)
    axis = x.order.index(p['dim'])
    begin[axis], end[axis], step[axis] = p['begin'], p['end'], p['step']
    return v.typed(hbir_name(op), [x.ssa], dict(begin=begin, end=end, step=step), v.shape(op),
                   x.order, op.site)


@lowers('pad')
def pad(v: LoweredValues, op: Op) -> Stored:
    """A constant border."""
    x = v.values[op.inputs[0]]
    begin, end = ([op.params[side][d] for d in x.order] for side in ('begin', 'end'))
    attrs = dict(begin=begin, end=end, expansionMode='constant', padValue=v.fill(op))
    return v.typed(hbir_name(op), [x.ssa], attrs, v.shape(op), x.order, op.site)


@lowers('flip')
def flip(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its input."""
    x = v.values[op.inputs[0]]
    dims = sorted(x.order.index(d) for d in op.params['dims'])
    return v.typed(hbir_name(op), [x.ssa], dict(dims=dims), x.shape, x.order, op.site)


@lowers('roll')
def roll(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its input."""
    x = v.values[op.inputs[0]]
    attrs = dict(shifts=op.params['shifts'], dims=[x.order.index(d) for d in op.params['dims']])
    return v.typed(hbir_name(op), [x.ssa], attrs, x.shape, x.order, op.site)


@lowers('tile')
def tile(v: LoweredValues, op: Op) -> Stored:
    """Repeated along dimensions."""
    return v.tile(v.values[op.inputs[0]], v.shape(op), op.site)


@lowers('expand')
def expand(v: LoweredValues, op: Op) -> Stored:
    """Dimensions of size 1 repeated."""
    x, shape = v.values[op.inputs[0]], v.shape(op)
    if len(x.shape) < len(shape):
        x = v.reshaped(x, (1, ) * (len(shape) - len(x.shape)) + x.shape, op.site)
    return x if x.shape == shape else v.tile(x, shape, op.site)


def _joined(v: LoweredValues, op: Op, parts: List[Optional[Stored]], dim: int,
            shape: tuple) -> Stored:
    order = next(p.order for p in parts if p is not None)
    operands = [
        v.constant(op, i, order) if part is None else v.move(part, order).ssa
        for i, part in enumerate(parts)
    ]
    return v.typed(hbir_name(op), operands, dict(dim=order.index(dim)), shape, order, op.site)


@lowers('concat')
def concat(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its first variable operand."""
    parts = [None if v.is_constant(n) else v.values[n] for n in op.inputs]
    return _joined(v, op, parts, op.params['dim'], v.shape(op))


@lowers('stack')
def stack(v: LoweredValues, op: Op) -> Stored:
    """Operands get a dimension of size 1, along which they are joined."""
    dim, shape = op.params['dim'], v.shape(op)
    one = shape[:dim] + (1, ) + shape[dim + 1:]
    parts = []
    for name in op.inputs:
        if v.is_constant(name):
            raise BpuError(f'{op.site}: stacking a constant tensor has no integer form')
        x = v.values[name]
        order = with_new_dim(x.order, dim)
        parts.append(v.typed('hbir.reshape', [x.ssa], dict(shape=stored_shape(one, order)), one,
                             order, op.site))
    return _joined(v, op, parts, dim, shape)
