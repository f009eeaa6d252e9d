"""What the data movement of the ``bpu`` dialect demands: the result's shape, equal elements."""
import math
from typing import Callable, Sequence

import numpy as np
from xdsl.ir import Operation

from mmdet_bpu.hbir.bpu_checks import (Shape, attribute, dim_of, dims_of, require, require_element,
                                       require_shape, shapes_of)
from mmdet_bpu.hbir.types import UniformQuantizedType


def _movement(expected: Callable[[Operation, Shape], Sequence[int]]) -> Callable:
    """Check of an op that moves data: result shape ``expected``, elements unchanged.

    Values quantized per channel keep their type only where the op leaves the channels alone.
    """
    def verify(op: Operation) -> None:
        shapes = shapes_of(op)[0]
        require_shape(op, expected(op, shapes[0]))
        for operand in op.operands:
            require_element(op, operand.type.element_type)
        element = op.operands[0].type.element_type
        require(not isinstance(element, UniformQuantizedType)
                or not isinstance(element.scale, np.ndarray),
                'values with one scale per channel cannot be moved')
    return verify


def _same_rank(values: Sequence[int], shape: Shape, name: str) -> None:
    require(len(values) == len(shape), f'{name} has {len(values)} values for rank {len(shape)}')


def _reshape(op: Operation, shape: Shape) -> Sequence[int]:
    target = attribute(op, 'shape')
    require(math.prod(target) == math.prod(shape), f'cannot reshape {shape} to {target}')
    return target


def _transpose(op: Operation, shape: Shape) -> Sequence[int]:
    dims = attribute(op, 'dims')
    require(sorted(dims) == list(range(len(shape))), f'dims {dims} do not permute {shape}')
    return [shape[dim] for dim in dims]


def _slice(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end, step = (attribute(op, name) for name in ('begin', 'end', 'step'))
    for name, values in (('begin', begin), ('end', end), ('step', step)):
        _same_rank(values, shape, name)
    require(all(0 <= low <= high <= size and stride > 0
                 for low, high, stride, size in zip(begin, end, step, shape)),
            f'begin {begin}, end {end}, step {step} do not slice {shape}')
    return [len(range(*bounds)) for bounds in zip(begin, end, step)]


def _concat(op: Operation, shape: Shape) -> Sequence[int]:
    dim = dim_of(attribute(op, 'dim'), len(shape))
    shapes = shapes_of(op)[0]
    require(all(other[:dim] + other[dim + 1:] == shape[:dim] + shape[dim + 1:]
                 for other in shapes), f'shapes {shapes} cannot be joined along dim {dim}')
    return shape[:dim] + (sum(other[dim] for other in shapes),) + shape[dim + 1:]


def _tile(op: Operation, shape: Shape) -> Sequence[int]:
    multiples = attribute(op, 'multiples')
    _same_rank(multiples, shape, 'multiples')
    return [size * count for size, count in zip(shape, multiples)]


def _flip(op: Operation, shape: Shape) -> Sequence[int]:
    dims_of(op, len(shape))
    return shape


def _roll(op: Operation, shape: Shape) -> Sequence[int]:
    shifts = attribute(op, 'shifts')
    require(len(shifts) == len(dims_of(op, len(shape))),
            f'{len(shifts)} shifts for dims {attribute(op, "dims")}')
    return shape


def _pad(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end = attribute(op, 'begin'), attribute(op, 'end')
    _same_rank(begin, shape, 'begin')
    _same_rank(end, shape, 'end')
    return [before + size + after for before, size, after in zip(begin, shape, end)]


VERIFY_MOVEMENT: dict[str, Callable[[Operation], None]] = {
    'reshape': _movement(_reshape), 'transpose': _movement(_transpose),
    'slice': _movement(_slice), 'concat': _movement(_concat), 'tile': _movement(_tile), 'flip': _movement(_flip), 'roll': _movement(_roll),
    'pad': _movement(_pad)}
"""Op name without prefix -> check."""
