"""Lowering of reductions and pooling."""
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.layout import CHANNELS_LAST
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers


@lowers('sum', 'mean', 'amax', 'amin')
def reduction(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its input; reduced dimensions stay as ones."""
    x = v.values[op.inputs[0]]
    dims = sorted(x.order.index(d) for d in op.params['dims'])
    return v.emit(hbir_name(op), [x.ssa], dict(dims=dims, keepDim=True), v.shape(op), x.order,
                  op.site)


@lowers('max_pool2d')
def max_pool2d(v: LoweredValues, op: Op) -> Stored:
    """Channels last; the same padding on both sides."""
    p = op.params
    top, left = p['padding']
    attrs = dict(kernel=p['kernel'], stride=p['stride'], pad=[top, left, top, left],
                 dilation=p['dilation'], ceilMode=p['ceil_mode'])
    x = v.in_order(op.inputs[0], CHANNELS_LAST)
    return v.emit(hbir_name(op), [x], attrs, v.shape(op), CHANNELS_LAST, op.site)


@lowers('avg_pool2d')
def avg_pool2d(v: LoweredValues, op: Op) -> Stored:
    """Channels last; whole windows, so padding and rounding up have nothing to say."""
    attrs = dict(kernel=op.params['kernel'], stride=op.params['stride'], pad=[0, 0, 0, 0],
                 dilation=[1, 1], ceilMode=False)
    x = v.in_order(op.inputs[0], CHANNELS_LAST)
    return v.emit(hbir_name(op), [x], attrs, v.shape(op), CHANNELS_LAST, op.site)
