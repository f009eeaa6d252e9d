"""Lowering of products: convolution, linear layer, matrix product."""
from typing import Optional, Tuple

import numpy as np
from xdsl.ir import SSAValue

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.hbir.builder import value_type
from mmdet_bpu.hbir.layout import CHANNELS_LAST, Order, identity
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.lowering.rules import hbir_name, lowers
from mmdet_bpu.program.dtypes import BITS
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged

ONE_SCALE = 2.0**-6  # of int8: 1 is a multiple of it


def weight_of(v: LoweredValues, op: Op, axes: Tuple[int, ...]) -> SSAValue:
    """The constant weight with its fake quantizer, ``axes`` as HBIR stores them."""
    weight = v.graph.values[op.inputs[1]].data.detach().cpu()
    if KINDS[op.kind].transposed:
        weight = channels_exchanged(weight, op.params['groups'])
    weight = weight.numpy().astype(np.float32)
    dtype, scale = v.scales.weights[op.output]
    ssa = v.b.constant(np.ascontiguousarray(weight.transpose(axes)), site=op.site)
    return v.b.fake_quant(ssa, BITS[dtype], scale, axis=0, site=op.site)


def bias_of(v: LoweredValues, op: Op) -> Optional[SSAValue]:
    """The constant bias, if there is one."""
    if len(op.inputs) < 3:
        return None
    data = v.graph.values[op.inputs[2]].data.detach().cpu().numpy()
    return v.b.constant(data.astype(np.float32), site=op.site)


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
    operands = [x, weight_of(v, op, weight_axes), bias_of(v, op)]
    return v.emit(hbir_name(op), operands, attrs, v.shape(op), order, op.site)


@lowers('conv2d', 'conv_transpose2d')
def convolution(v: LoweredValues, op: Op) -> Stored:
    """Channels last; the weight becomes (O, KH, KW, C)."""
    p = op.params
    attrs = dict(stride=p['stride'], pad=p['padding'], dilation=p['dilation'],
                 groupNum=p['groups'])
    x = v.in_order(op.inputs[0], CHANNELS_LAST)
    return weighted(v, op, (0, 2, 3, 1), attrs, x, CHANNELS_LAST)


@lowers('deform_conv2d')
def deform_conv2d(v: LoweredValues, op: Op) -> Stored:
    """Channels last. HBIR always has a mask: ones, which ``useMask`` says to leave out."""
    p, masked = op.params, len(op.inputs) > 4
    attrs = dict(stride=p['stride'], pad=p['padding'], dilation=p['dilation'],
                 groupNum=p['groups'], offsetGroupNum=p['offset_groups'], useMask=masked)
    x, offset = v.operand(op, 0, CHANNELS_LAST), v.operand(op, 3, CHANNELS_LAST)
    if masked:
        mask = v.operand(op, 4, CHANNELS_LAST)
    else:
        *size, maps = value_type(offset).shape
        mask = v.b.constant(np.ones((*size, maps // 2), np.float32), site=op.site)
        mask = v.b.fake_quant(mask, BITS['int8'], ONE_SCALE, site=op.site)
    operands = [x, weight_of(v, op, (0, 2, 3, 1)), offset, mask, bias_of(v, op)]
    return v.emit(hbir_name(op), operands, attrs, v.shape(op), CHANNELS_LAST, op.site)


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
