"""What the operations of the ``bpu`` dialect demand of shapes, scales and attribute values.

Each check gets an operation whose signature holds and raises VerifyException with the reason.
"""
import math
from typing import Any, Callable, Sequence

import numpy as np
from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.attributes import plain_value
from mmdet_bpu.hbir.types import UniformQuantizedType, value_type

MULTIPLIER_RANGE = (1 << 14, 1 << 15)
"""A multiplier is 0 or has exactly 15 significant bits (docs/numerics.md, requantization)."""

TABLE_SEGMENTS, SEGMENT_ENTRIES = 64, 64
"""Size of the 16-bit table unit: at most 64 segments of 64 entries each."""

Shape = tuple[int, ...]


def _attribute(op: Operation, name: str) -> Any:
    return plain_value(op.properties[name]) if name in op.properties else None


def _shapes(op: Operation) -> tuple[list[Shape], list[Shape]]:
    return ([tuple(value.type.get_shape()) for value in op.operands],
            [tuple(value.type.get_shape()) for value in op.results])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerifyException(message)


def _require_shape(op: Operation, expected: Sequence[int], result: int = 0) -> None:
    found = tuple(op.results[result].type.get_shape())
    _require(found == tuple(expected),
             f'result {result} has shape {found}, expected {tuple(expected)}')


def _require_element(op: Operation, element: Attribute, result: int = 0) -> None:
    found = op.results[result].type.element_type
    _require(found == element, f'result {result} has elements {found}, expected {element}')


def _dim(dim: int, rank: int) -> int:
    _require(0 <= dim < rank, f'dim {dim} is not in [0, {rank})')
    return dim


def _dims(op: Operation, rank: int) -> set[int]:
    dims = [_dim(dim, rank) for dim in _attribute(op, 'dims')]
    _require(len(set(dims)) == len(dims), f'dims {dims} repeat one')
    return set(dims)


def _requantization(op: Operation, prefix: str = '', channels: int = 1) -> None:
    multiplier, shift = _attribute(op, f'{prefix}multiplier'), _attribute(op, f'{prefix}shift')
    _require(len(multiplier) == len(shift) and len(shift) in (1, channels),
             f'{prefix}multiplier and {prefix}shift have {len(multiplier)} and {len(shift)} '
             f'values, expected 1 or {channels} of each')
    low, high = MULTIPLIER_RANGE
    wrong = [value for value in multiplier if value and not low <= value < high]
    _require(not wrong, f'{prefix}multiplier {wrong[:1]} is neither 0 nor in [{low}, {high})')


def _one_side_int8(op: Operation, left: int = 0, right: int = 1) -> None:
    types = [value_type(op.operands[index]).dtype for index in (left, right)]
    _require(types != ['si16', 'si16'], 'int16 x int16 products are not allowed, '
             'make one side si8')


def _accumulation(op: Operation, channels: int) -> None:
    """Checks shared by conv2d and linear: bias, epilogue and residual."""
    _one_side_int8(op)
    operands, results = _shapes(op)
    _require(operands[2] == (channels,), f'bias has shape {operands[2]}, expected ({channels},)')
    _requantization(op, channels=channels)
    has_residual = len(operands) == 4
    given = [name in op.properties for name in ('residual_multiplier', 'residual_shift')]
    _require(given == [has_residual] * 2, 'residual_multiplier and residual_shift are given '
             'exactly when there is a residual')
    if has_residual:
        _require(operands[3] == results[0], f'residual has shape {operands[3]}, '
                 f'the result {results[0]}')
        _requantization(op, 'residual_', channels)


def _window(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    span = size + pad - dilation * (kernel - 1) - 1
    steps = -(-span // stride) if ceil else span // stride
    return steps + 1


def _constant(op: Operation) -> None:
    value, output = value_type(op.properties['value'].type), value_type(op.results[0])
    _require(value.shape == output.shape, f'value has shape {value.shape}, the result '
             f'{output.shape}')
    _require(value.dtype.lstrip('s') == output.dtype.lstrip('s'),
             f'value holds {value.dtype}, the result {output.dtype}')


def _conv2d(op: Operation) -> None:
    (batch, height, width, channels), (out, kh, kw, group_channels) = _shapes(op)[0][:2]
    groups, stride = _attribute(op, 'groups'), _attribute(op, 'stride')
    pad, dilation = _attribute(op, 'pad'), _attribute(op, 'dilation')
    _require(groups > 0 and group_channels * groups == channels and out % groups == 0,
             f'input has {channels} channels, weight {group_channels} x {groups} groups '
             f'for {out} output channels')
    _require_shape(op, (batch, _window(height, kh, stride[0], pad[0] + pad[2], dilation[0], False),
                        _window(width, kw, stride[1], pad[1] + pad[3], dilation[1], False), out))
    _accumulation(op, out)


def _linear(op: Operation) -> None:
    data, (out, channels) = _shapes(op)[0][:2]
    _require(data[-1] == channels, f'input has {data[-1]} channels, weight {channels}')
    _require_shape(op, data[:-1] + (out,))
    _accumulation(op, out)


def _matmul(op: Operation) -> None:
    lhs, rhs = _shapes(op)[0]
    _require(len(lhs) == len(rhs) >= 2 and lhs[:-2] == rhs[:-2] and lhs[-1] == rhs[-2],
             f'shapes {lhs} and {rhs} cannot be multiplied')
    _require_shape(op, lhs[:-1] + rhs[-1:])
    _one_side_int8(op)
    _requantization(op)


def _broadcast(op: Operation, *shapes: Shape) -> None:
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        raise VerifyException(f'shapes {shapes} do not broadcast') from None
    _require_shape(op, expected)


def _add(op: Operation) -> None:
    _broadcast(op, *_shapes(op)[0])
    _require(_attribute(op, 'guard_bits') >= 0, 'guard_bits is negative')
    _requantization(op, 'lhs_')
    _requantization(op, 'rhs_')


def _mul(op: Operation) -> None:
    _broadcast(op, *_shapes(op)[0])
    _requantization(op)


def _requantize(op: Operation) -> None:
    _require_shape(op, _shapes(op)[0][0])
    _requantization(op)


def _table(op: Operation) -> None:
    _require_shape(op, _shapes(op)[0][0])
    start, shift = _attribute(op, 'segment_start'), _attribute(op, 'segment_shift')
    count = len(_attribute(op, 'entries'))
    if value_type(op.operands[0]).dtype == 'si8':
        _require(start is None and shift is None and count == 256,
                 f'a table of an si8 input has 256 entries and no segments, found {count} entries')
        return
    _require(start is not None and shift is not None and len(start) == len(shift),
             'a table of an si16 input has as many values in segment_start as in segment_shift')
    _require(1 <= len(start) <= TABLE_SEGMENTS and count == len(start) * SEGMENT_ENTRIES + 1,
             f'expected at most {TABLE_SEGMENTS} segments of {SEGMENT_ENTRIES} entries and one '
             f'guard entry, found {len(start)} segments and {count} entries')
    position = -1 << 15
    for begin, exponent in zip(start, shift):
        width = SEGMENT_ENTRIES << exponent if 0 <= exponent <= 10 else 0
        _require(begin == position and width > 0 and (begin + (1 << 15)) % width == 0,
                 f'segment at {begin} with shift {exponent}: expected an aligned segment at '
                 f'{position}')
        position += width
    _require(position == 1 << 15, f'segments end at {position}, expected {1 << 15}')


def _unary(op: Operation) -> None:
    _require_shape(op, _shapes(op)[0][0])
    _require_element(op, op.operands[0].type.element_type)


def _reduced(op: Operation) -> None:
    shape = _shapes(op)[0][0]
    dims = _dims(op, len(shape))
    _require_shape(op, [1 if dim in dims else size for dim, size in enumerate(shape)])


def _reduce_sum(op: Operation) -> None:
    _reduced(op)
    _requantization(op)


def _reduce_max(op: Operation) -> None:
    _reduced(op)
    _require_element(op, op.operands[0].type.element_type)


def _max_pool(op: Operation) -> None:
    (batch, height, width, channels), = _shapes(op)[0]
    kernel, stride, pad = (_attribute(op, name) for name in ('kernel', 'stride', 'pad'))
    dilation, ceil = _attribute(op, 'dilation'), _attribute(op, 'ceil_mode')
    sizes = [_window(size, kernel[axis], stride[axis], pad[axis] + pad[axis + 2],
                     dilation[axis], ceil) for axis, size in enumerate((height, width))]
    for axis, size in enumerate((height, width)):
        # As in PyTorch: the last window starts inside the input or its leading padding.
        if ceil and (sizes[axis] - 1) * stride[axis] >= size + pad[axis]:
            sizes[axis] -= 1
    _require_shape(op, (batch, *sizes, channels))
    _require_element(op, op.operands[0].type.element_type)


def _grid_sample(op: Operation) -> None:
    data, grid = _shapes(op)[0]
    _require(grid[0] == data[0] and grid[3] == 2, f'grid has shape {grid}, expected '
             f'({data[0]}, height, width, 2)')
    _require_shape(op, grid[:3] + data[3:])
    _require_element(op, op.operands[0].type.element_type)
    padding = _attribute(op, 'padding')
    _require(padding in ('zeros', 'border'), f'padding is zeros or border, found {padding}')
    _requantization(op, 'x_')
    _requantization(op, 'y_')


def _topk(op: Operation) -> None:
    shape = list(_shapes(op)[0][0])
    dim, k = _dim(_attribute(op, 'dim'), len(shape)), _attribute(op, 'k')
    _require(0 < k <= shape[dim], f'k = {k} of {shape[dim]} elements')
    shape[dim] = k
    _require_shape(op, shape)
    _require_shape(op, shape, 1)
    _require_element(op, op.operands[0].type.element_type)


def _gather(op: Operation) -> None:
    data, indices = _shapes(op)[0]
    dim = _dim(_attribute(op, 'dim'), len(data))
    _require(len(indices) == len(data) and all(
        index <= size for axis, (index, size) in enumerate(zip(indices, data)) if axis != dim),
        f'indices have shape {indices}, the input {data}')
    _require_shape(op, indices)
    _require_element(op, op.operands[0].type.element_type)


def _where(op: Operation) -> None:
    _broadcast(op, *_shapes(op)[0])
    _require_element(op, op.operands[1].type.element_type)


def _movement(expected: Callable[[Operation, Shape], Sequence[int]]) -> Callable:
    """Check of an op that moves data: result shape ``expected``, elements unchanged.

    Values quantized per channel keep their type only where the op leaves the channels alone.
    """
    def verify(op: Operation) -> None:
        shapes = _shapes(op)[0]
        _require_shape(op, expected(op, shapes[0]))
        for operand in op.operands:
            _require_element(op, operand.type.element_type)
        element = op.operands[0].type.element_type
        _require(not isinstance(element, UniformQuantizedType)
                 or not isinstance(element.scale, np.ndarray),
                 'values with one scale per channel cannot be moved')
    return verify


def _same_rank(values: Sequence[int], shape: Shape, name: str) -> None:
    _require(len(values) == len(shape), f'{name} has {len(values)} values for rank {len(shape)}')


def _reshape(op: Operation, shape: Shape) -> Sequence[int]:
    target = _attribute(op, 'shape')
    _require(math.prod(target) == math.prod(shape), f'cannot reshape {shape} to {target}')
    return target


def _transpose(op: Operation, shape: Shape) -> Sequence[int]:
    dims = _attribute(op, 'dims')
    _require(sorted(dims) == list(range(len(shape))), f'dims {dims} do not permute {shape}')
    return [shape[dim] for dim in dims]


def _slice(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end, step = (_attribute(op, name) for name in ('begin', 'end', 'step'))
    for name, values in (('begin', begin), ('end', end), ('step', step)):
        _same_rank(values, shape, name)
    _require(all(0 <= low <= high <= size and stride > 0
                 for low, high, stride, size in zip(begin, end, step, shape)),
             f'begin {begin}, end {end}, step {step} do not slice {shape}')
    return [len(range(*bounds)) for bounds in zip(begin, end, step)]


def _concat(op: Operation, shape: Shape) -> Sequence[int]:
    dim = _dim(_attribute(op, 'dim'), len(shape))
    shapes = _shapes(op)[0]
    _require(all(other[:dim] + other[dim + 1:] == shape[:dim] + shape[dim + 1:]
                 for other in shapes), f'shapes {shapes} cannot be joined along dim {dim}')
    return shape[:dim] + (sum(other[dim] for other in shapes),) + shape[dim + 1:]


def _tile(op: Operation, shape: Shape) -> Sequence[int]:
    multiples = _attribute(op, 'multiples')
    _same_rank(multiples, shape, 'multiples')
    return [size * count for size, count in zip(shape, multiples)]


def _pad(op: Operation, shape: Shape) -> Sequence[int]:
    begin, end = _attribute(op, 'begin'), _attribute(op, 'end')
    _same_rank(begin, shape, 'begin')
    _same_rank(end, shape, 'end')
    return [before + size + after for before, size, after in zip(begin, shape, end)]


VERIFY: dict[str, Callable[[Operation], None]] = {
    'constant': _constant, 'conv2d': _conv2d, 'linear': _linear, 'matmul': _matmul, 'add': _add,
    'sub': _add, 'mul': _mul, 'requantize': _requantize, 'table': _table, 'relu': _unary,
    'reduce_sum': _reduce_sum, 'reduce_max': _reduce_max, 'max_pool': _max_pool,
    'grid_sample': _grid_sample, 'topk': _topk, 'gather': _gather, 'where': _where,
    'reshape': _movement(_reshape), 'transpose': _movement(_transpose),
    'slice': _movement(_slice), 'concat': _movement(_concat), 'tile': _movement(_tile),
    'pad': _movement(_pad)}
"""Op name without prefix -> check."""
