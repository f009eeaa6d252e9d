"""Integer forms of data movement, and of what keeps integers as they are."""
import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, constant_array, site_of
from mmdet_bpu.hbir.passes.conversion import IntType
from mmdet_bpu.hbir.passes.emit import Emitter
from mmdet_bpu.hbir.passes.emit_resize import resize_nearest
from mmdet_bpu.hbir.types import tensor_type, value_type
from mmdet_bpu.program.dtypes import integer_range


def _moved(e: Emitter, op: Operation, name: str, attrs: dict, operands=None) -> None:
    operands = operands or [e.operand(v, op) for v in op.operands]
    element = operands[0].type.element_type
    shape = value_type(op.results[0]).shape
    e.ints[op.results[0]] = e.b.op(name, operands, attrs, TensorType(element, list(shape)),
                                   site=site_of(op))


def _plain(name: str, **renamed: str):
    """Same attributes under the integer dialect's names; ``renamed`` maps new to old."""

    def movement(e: Emitter, op: Operation) -> None:
        attrs = attrs_of(op)
        _moved(e, op, name, {new: attrs[old] for new, old in renamed.items()})

    return movement


def _topk(e: Emitter, op: Operation) -> None:
    attrs, x = attrs_of(op), e.operand(op.operands[0], op)
    shape = value_type(op.results[0]).shape
    types = [TensorType(x.type.element_type, list(shape)), tensor_type(shape, 'si32')]
    results = e.b.op('bpu.topk', [x], dict(k=attrs['k'], dim=attrs['dim']), types,
                     site=site_of(op))
    e.ints.update(zip(op.results, results))


def _integer_of(number: float, type_: IntType) -> int:
    """A number put among integers: the nearest one, saturated."""
    return int(np.rint(np.clip(number / type_.scale, *integer_range(type_.dtype))))


def _where(e: Emitter, op: Operation) -> None:
    """A number, or the elements of another tensor on the same scale, where the mask is set."""
    mask, inside, x = op.operands
    data = constant_array(mask)
    if data is None and mask not in e.ints:
        raise BpuError(f'{site_of(op)}: expected a mask that is a constant or a comparison with 0')
    operands = [e.ints[mask] if data is None else e.constant(data, None, site_of(op)),
                e.operand(x, op)]
    attrs = {}
    if constant_array(inside) is None:
        operands.append(e.operand(inside, op))
    else:
        number = float(constant_array(inside).flat[0])
        attrs['fill'] = _integer_of(number, e.type_of(x, op))
    shape = value_type(op.results[0]).shape
    type_ = TensorType(operands[1].type.element_type, list(shape))
    e.ints[op.results[0]] = e.b.op('bpu.where', operands, attrs, type_, site=site_of(op))


def _sign(name: str):
    """A mask: integers above 0, or not below it."""

    def sign(e: Emitter, op: Operation) -> None:
        x, other = op.operands
        zero = constant_array(other)
        if zero is None or zero.any():
            raise BpuError(f'{site_of(op)}: expected a comparison with 0; write that of two '
                           'tensors as the sign of their difference')
        mask = tensor_type(value_type(op.results[0]).shape, 'i1')
        e.ints[op.results[0]] = e.b.op(name, [e.operand(x, op)], {}, mask, site=site_of(op))

    return sign


def _pad(e: Emitter, op: Operation) -> None:
    attrs = attrs_of(op)
    if attrs['expansionMode'] != 'constant':
        raise BpuError(f'{site_of(op)}: only constants can be padded')
    value = _integer_of(float(attrs['padValue']), e.type_of(op.operands[0], op))
    _moved(e, op, 'bpu.pad', dict(begin=attrs['begin'], end=attrs['end'], value=value))


MOVED = {
    'hbir.reshape': _plain('bpu.reshape', shape='shape'),
    'hbir.transpose': _plain('bpu.transpose', dims='dims'),
    'hbir.slice': _plain('bpu.slice', begin='begin', end='end', step='step'),
    'hbir.pad': _pad,
    'hbir.flip': _plain('bpu.flip', dims='dims'),
    'hbir.roll': _plain('bpu.roll', shifts='shifts', dims='dims'),
    'hbir.tile': _plain('bpu.tile', multiples='multiplies'),
    'hbir.gather_elements': _plain('bpu.gather', dim='dim'),
    'hbir.max_pool': _plain('bpu.max_pool', kernel='kernel', stride='stride', pad='pad',
                            dilation='dilation', ceil_mode='ceilMode'),
    'hbir.reduce_max': _plain('bpu.reduce_max', dims='dims'),
    'hbir.reduce_min': _plain('bpu.reduce_min', dims='dims'),
    'hbir.relu': _plain('bpu.relu'),
    'hbir.resize2d': resize_nearest,
    'hbir.concat': _plain('bpu.concat', dim='dim'),
    'hbir.max': _plain('bpu.max'),
    'hbir.min': _plain('bpu.min'),
    'hbir.greater': _sign('bpu.positive'),
    'hbir.greater_equal': _sign('bpu.not_negative'),
    'hbir.topk': _topk,
    'hbir.where': _where,
}
