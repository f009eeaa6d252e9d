"""The quantities that op limits speak of, computed from an op: 'KH*KW*C', 'reduced elements'."""
from math import prod
from typing import Any, Callable

from mmdet_bpu.compiler.op_view import ELEMENT_BYTES, OpView

Measures = dict[str, Any]


def _windows(view: OpView) -> tuple[list[int], list[int], list[int]]:
    """Stride, pad and dilation; HBIR text may leave out those that do nothing."""
    attrs = view.attrs
    return (list(attrs.get('stride') or [1, 1]), list(attrs.get('pad') or [0] * 4),
            list(attrs.get('dilation') or [1, 1]))


def _conv2d(view: OpView) -> Measures:
    if len(view.operands['weight'].shape) != 4:
        return {}
    batch, height, width, channels = view.operands['input'].shape
    c_out, kernel_h, kernel_w, group_channels = view.operands['weight'].shape
    stride, (top, left, bottom, right), dilation = _windows(view)
    depthwise = group_channels == 1 and view.attrs.get('groups', 1) == channels > 1
    int16 = 'si16' in (view.operands['input'].dtype, view.operands['weight'].dtype)
    measures = {
        'N': batch, 'H, W, C': [height, width, channels],
        'weight C': group_channels, 'KH, KW': [kernel_h, kernel_w],
        'C_out': c_out, 'KH*KW*C': kernel_h * kernel_w * group_channels,
        'stride': stride, 'dilation': dilation,
        'stride where dilated': [s for s, d in zip(stride, dilation) if d > 1],
        'pad': [top, left, bottom, right],
        'pad + half of H, W': [min(top, bottom) + height // 2, min(left, right) + width // 2],
        'stride of int16 depthwise': stride if depthwise and int16 else [],
    }
    if not view.feeds_output:
        measures['C_out of an inner conv'] = c_out
    return measures


def _deform_conv2d(view: OpView) -> Measures:
    _, height, width, channels = view.operands['input'].shape
    c_out, kernel_h, kernel_w, group_channels = view.operands['weight'].shape
    _, out_h, out_w, maps = view.operands['offset'].shape
    stride, (top, left, bottom, right), dilation = _windows(view)
    return {
        'H, W': [height, width], 'H*W': height * width, 'C': channels,
        'offset maps': maps, 'OH*KH*OW*KW': out_h * kernel_h * out_w * kernel_w,
        'weight C': group_channels, 'KH, KW': [kernel_h, kernel_w], 'C_out': c_out,
        'KH*KW*C': kernel_h * kernel_w * group_channels, 'stride': stride, 'dilation': dilation,
        'offset groups': view.attrs.get('offset_groups', 1), 'pad': [top, left, bottom, right],
        'pad + half of H, W': [min(top, bottom) + height // 2, min(left, right) + width // 2],
    }


def _convtranspose(view: OpView) -> Measures:
    batch, height, width, channels = view.operands['input'].shape
    c_out, kernel_h, kernel_w, group_channels = view.operands['weight'].shape
    stride, pad, dilation = _windows(view)
    return {'N': batch, 'H, W': [height, width], 'C': channels,
            'weight N, C': [c_out, group_channels], 'KH, KW': [kernel_h, kernel_w],
            'KH*KW': kernel_h * kernel_w, 'KH*KW*C': kernel_h * kernel_w * group_channels,
            'stride': stride, 'pad': pad, 'dilation': dilation}


def _linear(view: OpView) -> Measures:
    c_out, c_in = view.operands['weight'].shape
    return {'input dims': list(view.operands['input'].shape), 'C_in, C_out': [c_in, c_out],
            'C_in*C_out': c_in * c_out}


def _matmul(view: OpView) -> Measures:
    lhs, rhs = view.operands['lhs'].shape, view.operands['rhs'].shape
    return {'batch dims': list(lhs[:-2]), 'M, K, N': [lhs[-2], lhs[-1], rhs[-1]]}


def _reduce(view: OpView) -> Measures:
    shape = view.operands['input'].shape
    reduced = [shape[dim] for dim in view.attrs.get('dims') or range(len(shape))]
    return {'reduced dims': reduced, 'reduced elements': prod(reduced)}


def _pool(view: OpView) -> Measures:
    kernel = list(view.attrs.get('kernel') or [1, 1])
    area = prod(kernel)
    stride, pad, _ = _windows(view)
    return {'kernel': kernel, 'stride': stride, 'pad': pad, 'KH*KW': area,
            'KH*KW*bytes': area * ELEMENT_BYTES.get(view.operands['input'].dtype, 1)}


def _join(view: OpView) -> Measures:
    tensors = list(view.operands.values())
    size = sum(t.elements * ELEMENT_BYTES.get(t.dtype, 4) for t in tensors)
    return {'number of inputs': len(tensors),
            'input dims': [d for t in tensors for d in t.shape], 'bytes': size}


def _slice(view: OpView) -> Measures:
    return {'input dims': list(view.operands['input'].shape)}


def _pad(view: OpView) -> Measures:
    return {'padding': [*view.attrs.get('begin', ()), *view.attrs.get('end', ())]}


def _sample(view: OpView) -> Measures:
    shape = view.operands['input'].shape
    return {'input dims': list(shape), 'min(H, W)': min(shape[-3:-1])}


def _resize(view: OpView) -> Measures:
    steps, bits = view.attrs.get('step') or (), view.attrs.get('position_bits')
    return {'integer part of step': [int(step) if bits is None else step >> bits
                                     for step in steps]}


def _gather(view: OpView) -> Measures:
    """The unit sees [*, H, W, C]: a last dim that is gathered over becomes W with C = 1."""
    tensor = view.operands['input']
    shape = tensor.shape
    dim = view.attrs.get('dim', 0) % len(shape)
    padded = (1,) * (3 - len(shape)) + shape
    sides = padded[-2:] if dim == len(shape) - 1 else padded[-3:-1]
    name = 'H, W of int8' if tensor.dtype == 'si8' else 'H, W of wider types'
    return {'gathered rows': shape[dim], name: list(sides), 'min(H, W)': min(sides)}


_MEASURES: dict[str, Callable[[OpView], Measures]] = {
    'conv': _conv2d, 'conv2d': _conv2d, 'convtranspose': _convtranspose,
    'deform_conv2d': _deform_conv2d,
    'linear': _linear, 'matmul': _matmul,
    'reduce_sum': _reduce, 'reduce_max': _reduce, 'reduce_mean': _reduce, 'reduce_min': _reduce,
    'reduce_argmax': _reduce, 'reduce_argmin': _reduce,
    'max_pool': _pool, 'avg_pool': _pool,
    'concat': _join, 'stack': _join, 'slice': _slice, 'slice_scatter': _slice, 'pad': _pad,
    'resize2d': _resize, 'grid_sample': _sample, 'warp': _sample,
    'gather_elements': _gather, 'index': _gather,
}


def measures_of(view: OpView) -> Measures:
    """Measured quantities of an op: name -> int or list of ints, each of which is checked."""
    measure = _MEASURES.get(view.op.removeprefix('hbir.'))
    return measure(view) if measure else {}
