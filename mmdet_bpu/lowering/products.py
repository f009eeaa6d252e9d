"""Lowering of products: convolution, linear layer, matrix product."""
from typing import Tuple

import numpy as np
from xdsl.ir import SSAValue

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.layout import CHANNELS_LAST, Order, identity
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers
from mmdet_bpu.program.dtypes import BITS
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged


def weighted(v: LoweredValues, op: Op, weight_axes: Tuple[int, ...], attrs: dict, x: SSAValue,
             order: Order) -> Stored:
    """A product with constant weights and bias.

    Args:
        v (LoweredValues): The lowering's state.
        op (Op): Its operands are input, weight and, if there is one, bias.
        weight_axes (tuple[int]): Axes of the weight as HBIR stores them; the output channel first.
        attrs (dict): Attributes of the operation.
        x (SSAValue): The input, stored in ``order``.
        order (tuple[int]): Stored order of input and result.
    """
    weight = v.graph.values[op.inputs[1]].data.detach().cpu()
    if KINDS[op.kind].transposed:
        weight = channels_exchanged(weight, op.params['groups'])
    weight = weight.numpy().astype(np.float32)
    dtype, scale = v.scales.weights[op.output]
    ssa = v.b.constant(np.ascontiguousarray(weight.transpose(weight_axes)), site=op.site)
    ssa = v.b.fake_quant(ssa, BITS[dtype], scale, axis=0, site=op.site)
    bias = None
    if len(op.inputs) > 2:
        data = v.graph.values[op.inputs[2]].data.detach().cpu().numpy()
        bias = v.b.constant(data.astype(np.float32), site=op.site)
    return v.emit(hbir_name(op), [x, ssa, bias], attrs, v.shape(op), order, op.site)


@lowers('conv2d', 'conv_transpose2d')
def convolution(v: LoweredValues, op: Op) -> Stored:
    """Channels last; the weight becomes (O, KH, KW, C)."""
    p = op.params
    attrs = dict(stride=p['stride'], pad=p['padding'], dilation=p['dilation'],
                 groupNum=p['groups'])
    x = v.in_order(op.inputs[0], CHANNELS_LAST)
    return weighted(v, op, (0, 2, 3, 1), attrs, x, CHANNELS_LAST)


@lowers('linear')
def linear(v: LoweredValues, op: Op) -> Stored:
    """In the stored order of its input, if the features lie last there."""
    order = v.values[op.inputs[0]].order
    if order[-1] != len(order) - 1:
        order = identity(len(order))
    return weighted(v, op, (0, 1), {}, v.in_order(op.inputs[0], order), order)


@lowers('matmul')
def matmul(v: LoweredValues, op: Op) -> Stored:
    """Of two activations, or of one and a constant."""
    operands = [v.operand(op, i, identity(len(v.graph.values[n].shape)))
                for i, n in enumerate(op.inputs)]
    shape = v.shape(op)
    return v.emit(hbir_name(op), operands, {}, shape, identity(len(shape)), op.site)
