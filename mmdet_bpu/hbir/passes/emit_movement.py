"""Integer forms of data movement, and of what keeps integers as they are."""
import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, constant_array, site_of
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


def _concat(e: Emitter, op: Operation) -> None:
    operands = [e.operand(v, op) for v in op.operands]
    _moved(e, op, 'bpu.concat', dict(dim=attrs_of(op)['dim']), operands)


def _topk(e: Emitter, op: Operation) -> None:
    attrs, x = attrs_of(op), e.operand(op.operands[0], op)
    shape = value_type(op.results[0]).shape
    types = [TensorType(x.type.element_type, list(shape)), tensor_type(shape, 'si32')]
    results = e.b.op('bpu.topk', [x], dict(k=attrs['k'], dim=attrs['dim']), types,
                     site=site_of(op))
    e.ints.update(zip(op.results, results))


def _where(e: Emitter, op: Operation) -> None:
    site = site_of(op)
    x = e.operand(op.operands[2], op)
    type_ = e.type_of(op.operands[2], op)
    fill = float(constant_array(op.operands[1]).flat[0]) / type_.scale
    fill = int(np.rint(np.clip(fill, *integer_range(type_.dtype))))
    mask = e.constant(constant_array(op.operands[0]), None, site)
    shape = value_type(op.results[0]).shape
    e.ints[op.results[0]] = e.b.op('bpu.where', [mask, x], dict(fill=fill),
                                   TensorType(x.type.element_type, list(shape)), site=site)


def _pad(e: Emitter, op: Operation) -> None:
    attrs = attrs_of(op)
    if attrs['expansionMode'] != 'constant' or attrs['padValue'] != 0:
        raise BpuError(f'{site_of(op)}: only zeros can be padded')
    _moved(e, op, 'bpu.pad', dict(begin=attrs['begin'], end=attrs['end'], value=0))


MOVED = {
    'hbir.reshape': _plain('bpu.reshape', shape='shape'),
    'hbir.transpose': _plain('bpu.transpose', dims='dims'),
    'hbir.slice': _plain('bpu.slice', begin='begin', end='end', step='step'),
    'hbir.pad': _pad,
    'hbir.tile': _plain('bpu.tile', multiples='multiplies'),
    'hbir.gather_elements': _plain('bpu.gather', dim='dim'),
    'hbir.max_pool': _plain('bpu.max_pool', kernel='kernel', stride='stride', pad='pad',
                            dilation='dilation', ceil_mode='ceilMode'),
    'hbir.reduce_max': _plain('bpu.reduce_max', dims='dims'),
    'hbir.reduce_min': _plain('bpu.reduce_min', dims='dims'),
    'hbir.relu': _plain('bpu.relu'),
    'hbir.resize2d': resize_nearest,
    'hbir.concat': _concat,
    'hbir.topk': _topk,
    'hbir.where': _where,
}
