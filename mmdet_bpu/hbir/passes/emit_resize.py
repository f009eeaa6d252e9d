"""Integer form of resize2d: positions in fixed point.

    %y = hbir.resize2d(%x) nearest               ->   bpu.resize(%x), the same pixels
    %y = qnt.const_fake_quant(hbir.resize2d(%x) bilinear)
                                                 ->   bpu.resize(%x), on the scale of %x
"""
from typing import List, Tuple

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, site_of
from mmdet_bpu.hbir.passes.conversion import IntType
from mmdet_bpu.hbir.passes.emit import Emitter
from mmdet_bpu.hbir.reference_feature_maps import nearest_pixels, resize_attributes
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.resize_positions import (FRACTION_BITS, POSITION_BITS, axis_positions,
                                                fixed_point, nearest_positions)


def _nearest(op: Operation, offset: float, step: float, count: int, size: int) -> Tuple[int, int]:
    """Start and step in fixed point that take exactly the pixels of the float rule."""
    pixels = nearest_pixels(offset, step, count, size)
    start, stride = fixed_point(offset), fixed_point(step)
    if axis_positions(start, stride, count, POSITION_BITS, 0, size).tolist() == pixels:
        return start, stride
    found = nearest_positions(pixels, size, step)
    if found is None:
        raise BpuError(f'{site_of(op)}: no start and step in 2**-{POSITION_BITS} px take the '
                       f'pixels of a nearest resize from {size} to {count} px')
    return found


def _resize(e: Emitter, op: Operation) -> SSAValue:
    attrs, site = attrs_of(op), site_of(op)
    mode = resize_attributes(attrs)
    x = e.operand(op.operands[0], op)
    source = value_type(x)
    if source.dtype != 'si8':
        raise BpuError(f'{site}: a resize takes int8 only, found {source.dtype}; change the '
                       'qconfig rule of its input')
    size = value_type(op.results[0]).shape[1:3]
    pairs: List[Tuple[int, int]] = []
    for axis in (0, 1):
        offset, step = attrs['initialOffset'][axis], attrs['step'][axis]
        if mode == 'nearest':
            pairs.append(_nearest(op, offset, step, size[axis], source.shape[1 + axis]))
        else:
            pairs.append((fixed_point(offset), fixed_point(step)))
    start, step = zip(*pairs)
    plain = dict(size=size, start=start, step=step, mode=mode, position_bits=POSITION_BITS,
                 fraction_bits=FRACTION_BITS if mode == 'bilinear' else 0)
    type_ = TensorType(x.type.element_type, list(value_type(op.results[0]).shape))
    return e.b.op('bpu.resize', [x], plain, type_, site=site)


def resize_nearest(e: Emitter, op: Operation) -> None:
    """Data movement: the integers of the input."""
    e.ints[op.results[0]] = _resize(e, op)


def resize_bilinear(e: Emitter, op: Operation, out: IntType) -> SSAValue:
    """Rounded, on the scale of the input."""
    if np.float32(e.type_of(op.operands[0], op).scale) != np.float32(out.scale):
        raise BpuError(f'{site_of(op)}: the result of a resize must have the scale of its input')
    return _resize(e, op)
