"""What the operations that move data demand: the result's shape, equal elements."""
import math
from typing import Callable, Sequence

from mmdet_bpu.program.dtypes import INT32_MAX
from mmdet_bpu.program.operation_checks import (Operation, Shape, dim_of, dims_of, require,
                                                require_element, require_shape, require_value)


def _movement(expected: Callable[[Operation, Shape], Sequence[int]]) -> Callable:
    """Check of an op that moves data: result shape ``expected``, elements unchanged.

    Values quantized per channel keep their type only where the op leaves the channels alone.
    """
    def verify(op: Operation) -> None:
        require(len(op.operands) > 0, 'it has no operand')
        require_shape(op, expected(op, op.shapes[0]))
        for operand in op.operands:
            require_element(op, operand.element)
        require(not op.operands[0].per_channel,
                'values with one scale per channel cannot be moved')
    return verify


def _same_rank(values: Sequence[int], shape: Shape, name: str) -> None:
    require(len(values) == len(shape), f'{name} has {len(values)} values for rank {len(shape)}')


def _reshape(op: Operation, shape: Shape) -> Sequence[int]:
    target = op.integers('shape')
    require(all(size > 0 for size in target) and math.prod(target) == math.prod(shape),
            f'cannot reshape {shape} to {target}')
    return target


def _transpose(op: Operation, shape: Shape) -> Sequence[int]:
    dims = op.integers('dims')
    require(sorted(dims) == list(range(len(shape))), f'dims {dims} do not permute {shape}')
    return [shape[dim] for dim in dims]


def _slice(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end, step = (op.integers(name) for name in ('begin', 'end', 'step'))
    for name, values in (('begin', begin), ('end', end), ('step', step)):
        _same_rank(values, shape, name)
    require(all(0 <= low <= high <= size and stride > 0
                 for low, high, stride, size in zip(begin, end, step, shape)),
            f'begin {begin}, end {end}, step {step} do not slice {shape}')
    return [len(range(*bounds)) for bounds in zip(begin, end, step)]


def _concat(op: Operation, shape: Shape) -> Sequence[int]:
    dim = dim_of(op.attrs['dim'], len(shape))
    shapes = op.shapes
    require(all(other[:dim] + other[dim + 1:] == shape[:dim] + shape[dim + 1:]
                 for other in shapes), f'shapes {shapes} cannot be joined along dim {dim}')
    return shape[:dim] + (sum(other[dim] for other in shapes),) + shape[dim + 1:]


def _tile(op: Operation, shape: Shape) -> Sequence[int]:
    multiples = op.integers('multiples')
    _same_rank(multiples, shape, 'multiples')
    require(all(count > 0 for count in multiples), f'multiples {multiples} must be positive')
    return [size * count for size, count in zip(shape, multiples)]


def _flip(op: Operation, shape: Shape) -> Sequence[int]:
    dims_of(op, len(shape))
    return shape


def _roll(op: Operation, shape: Shape) -> Sequence[int]:
    shifts = op.integers('shifts')
    require(all(abs(shift) <= INT32_MAX for shift in shifts), f'shifts {shifts} leave int32')
    require(len(shifts) == len(dims_of(op, len(shape))),
            f'{len(shifts)} shifts for dims {op.integers("dims")}')
    return shape


def _pad(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end = op.integers('begin'), op.integers('end')
    _same_rank(begin, shape, 'begin')
    _same_rank(end, shape, 'end')
    require(min(begin + end, default=0) >= 0, f'begin {begin} and end {end} must not be negative')
    require_value(op, 'value')
    return [before + size + after for before, size, after in zip(begin, shape, end)]


MOVEMENT_RULES: dict[str, Callable[[Operation], None]] = {
    'reshape': _movement(_reshape), 'transpose': _movement(_transpose),
    'slice': _movement(_slice), 'concat': _movement(_concat), 'tile': _movement(_tile),
    'flip': _movement(_flip), 'roll': _movement(_roll), 'pad': _movement(_pad)}
"""Name without prefix -> rule."""
