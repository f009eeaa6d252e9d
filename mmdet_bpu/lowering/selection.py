"""Lowering of sampling and selection."""
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.layout import CHANNELS_LAST, identity, stored_shape
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers


@lowers('grid_sample')
def grid_sample(v: LoweredValues, op: Op) -> Stored:
    """Channels last; the grid as it is."""
    x = v.operand(op, 0, CHANNELS_LAST)
    grid = v.operand(op, 1, identity(4))
    mode = {'zeros': 'constant', 'border': 'border'}[op.params['padding']]
    attrs = dict(mode='bilinear', expansionMode=mode, alignCorner=False, padValue=0.0)
    return v.emit(hbir_name(op), [x, grid], attrs, v.shape(op), CHANNELS_LAST, op.site)


@lowers('resize_nearest', 'resize_bilinear')
def resize(v: LoweredValues, op: Op) -> Stored:
    """Channels last; positions in px."""
    x, shape = v.operand(op, 0, CHANNELS_LAST), v.shape(op)
    size, source = shape[2:], v.graph.values[op.inputs[0]].shape[2:]
    attrs = dict(ratio=[n / m for n, m in zip(size, source)], size=size, step=op.params['step'],
                 initialOffset=op.params['start'], mode=op.kind.removeprefix('resize_'),
                 expansionMode='border', padValue=0.0)
    return v.emit(hbir_name(op), [x], attrs, shape, CHANNELS_LAST, op.site)


@lowers('topk')
def topk(v: LoweredValues, op: Op) -> Stored:
    """One of its two results; the other one has no reader."""
    shape = v.shape(op)
    order = identity(len(shape))
    x = v.in_order(op.inputs[0], order)
    attrs = dict(k=op.params['k'], dim=op.params['dim'], largest=True, sorted=True)
    types = [tensor_type(shape, 'f32'), tensor_type(shape, 'si32')]
    results = v.b.op(hbir_name(op), [x], attrs, types, site=op.site)
    return Stored(results[0 if op.params['part'] == 'values' else 1], shape, order)


@lowers('gather')
def gather(v: LoweredValues, op: Op) -> Stored:
    """torch's gather, in its own order of dimensions."""
    shape = v.shape(op)
    order = identity(len(shape))
    operands = [v.operand(op, i, order) for i in range(2)]
    return v.emit(hbir_name(op), operands, dict(dim=op.params['dim']), shape, order, op.site)


@lowers('positive', 'not_negative')
def sign(v: LoweredValues, op: Op) -> Stored:
    """A mask of where a tensor is above 0, or not below it."""
    x = v.values[op.inputs[0]]
    mask = tensor_type(stored_shape(x.shape, x.order), 'i1')
    result = v.b.op(hbir_name(op), [x.ssa, v.scalar(0.0)], {}, mask, site=op.site)
    return Stored(result, x.shape, x.order)


@lowers('where')
def where(v: LoweredValues, op: Op) -> Stored:
    """A number where a constant mask is set."""
    x = v.values[op.inputs[1]]
    mask = v.constant(op, 0, x.order)
    return v.emit(hbir_name(op), [mask, v.scalar(v.fill(op)), x.ssa], {}, x.shape, x.order,
                  op.site)


@lowers('select')
def select(v: LoweredValues, op: Op) -> Stored:
    """Elements of one tensor where a mask is set, of another one elsewhere."""
    # Masks stay in their order: HBIR moves none.
    order = next(v.values[n].order for n in op.inputs if not v.is_constant(n))
    operands = [v.operand(op, i, order) for i in range(3)]
    return v.emit(hbir_name(op), operands, {}, v.shape(op), order, op.site)
