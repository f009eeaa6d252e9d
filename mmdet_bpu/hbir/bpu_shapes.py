"""What the operations of the ``bpu`` dialect demand of shapes, scales and attribute values.

Each check gets an operation whose signature holds and raises VerifyException with the reason.
"""
from typing import Callable

import numpy as np
from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.bpu_checks import (Shape, attribute, dim_of, dims_of, require,
                                       require_element, require_requantization, require_shape,
                                       shapes_of)
from mmdet_bpu.hbir.bpu_movement import VERIFY_MOVEMENT
from mmdet_bpu.hbir.types import value_type

TABLE_SEGMENTS, SEGMENT_ENTRIES = 64, 64
"""Size of the 16-bit table unit: at most 64 segments of 64 entries each."""


def _one_side_int8(op: Operation, left: int = 0, right: int = 1) -> None:
    types = [value_type(op.operands[index]).dtype for index in (left, right)]
    require(types != ['si16', 'si16'], 'int16 x int16 products are not allowed, '
            'make one side si8')


def _accumulation(op: Operation, channels: int) -> None:
    """Checks shared by conv2d and linear: bias, epilogue and residual."""
    _one_side_int8(op)
    operands, results = shapes_of(op)
    require(operands[2] == (channels,), f'bias has shape {operands[2]}, expected ({channels},)')
    require_requantization(op, channels=channels)
    has_residual = len(operands) == 4
    given = [name in op.properties for name in ('residual_multiplier', 'residual_shift')]
    require(given == [has_residual] * 2, 'residual_multiplier and residual_shift are given '
            'exactly when there is a residual')
    if has_residual:
        require(operands[3] == results[0], f'residual has shape {operands[3]}, '
                f'the result {results[0]}')
        require_requantization(op, 'residual_', channels)


def _window(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    require(min(kernel, stride, dilation) > 0 and pad >= 0,
            f'kernel {kernel}, stride {stride}, dilation {dilation} and padding {pad} must be '
            'positive')
    span = size + pad - dilation * (kernel - 1) - 1
    steps = -(-span // stride) if ceil else span // stride
    return steps + 1


def _constant(op: Operation) -> None:
    value, output = value_type(op.properties['value'].type), value_type(op.results[0])
    require(value.shape == output.shape, f'value has shape {value.shape}, the result '
            f'{output.shape}')
    require(value.dtype.lstrip('s') == output.dtype.lstrip('s'),
            f'value holds {value.dtype}, the result {output.dtype}')


def _conv2d(op: Operation) -> None:
    (batch, height, width, channels), (out, kh, kw, group_channels) = shapes_of(op)[0][:2]
    groups, stride = attribute(op, 'groups'), attribute(op, 'stride')
    pad, dilation = attribute(op, 'pad'), attribute(op, 'dilation')
    require(groups > 0 and group_channels * groups == channels and out % groups == 0,
            f'input has {channels} channels, weight {group_channels} x {groups} groups '
            f'for {out} output channels')
    require_shape(op, (batch, _window(height, kh, stride[0], pad[0] + pad[2], dilation[0], False),
                        _window(width, kw, stride[1], pad[1] + pad[3], dilation[1], False), out))
    _accumulation(op, out)


def _linear(op: Operation) -> None:
    data, (out, channels) = shapes_of(op)[0][:2]
    require(data[-1] == channels, f'input has {data[-1]} channels, weight {channels}')
    require_shape(op, data[:-1] + (out,))
    _accumulation(op, out)


def _matmul(op: Operation) -> None:
    lhs, rhs = shapes_of(op)[0]
    require(len(lhs) == len(rhs) >= 2 and lhs[:-2] == rhs[:-2] and lhs[-1] == rhs[-2],
            f'shapes {lhs} and {rhs} cannot be multiplied')
    require_shape(op, lhs[:-1] + rhs[-1:])
    _one_side_int8(op)
    require_requantization(op)


def _broadcast(op: Operation, *shapes: Shape) -> None:
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        raise VerifyException(f'shapes {shapes} do not broadcast') from None
    require_shape(op, expected)


def _add(op: Operation) -> None:
    _broadcast(op, *shapes_of(op)[0])
    require(attribute(op, 'guard_bits') >= 0, 'guard_bits is negative')
    require_requantization(op, 'lhs_')
    require_requantization(op, 'rhs_')


def _mul(op: Operation) -> None:
    _broadcast(op, *shapes_of(op)[0])
    require_requantization(op)


def _requantize(op: Operation) -> None:
    require_shape(op, shapes_of(op)[0][0])
    require_requantization(op)


def _table(op: Operation) -> None:
    require_shape(op, shapes_of(op)[0][0])
    start, shift = attribute(op, 'segment_start'), attribute(op, 'segment_shift')
    count = len(attribute(op, 'entries'))
    if value_type(op.operands[0]).dtype == 'si8':
        require(start is None and shift is None and count == 256,
                f'a table of an si8 input has 256 entries and no segments, found {count} entries')
        return
    require(start is not None and shift is not None and len(start) == len(shift),
            'a table of an si16 input has as many values in segment_start as in segment_shift')
    require(1 <= len(start) <= TABLE_SEGMENTS and count == len(start) * SEGMENT_ENTRIES + 1,
            f'expected at most {TABLE_SEGMENTS} segments of {SEGMENT_ENTRIES} entries and one '
            f'guard entry, found {len(start)} segments and {count} entries')
    position = -1 << 15
    for begin, exponent in zip(start, shift):
        width = SEGMENT_ENTRIES << exponent if 0 <= exponent <= 10 else 0
        require(begin == position and width > 0 and (begin + (1 << 15)) % width == 0,
                f'segment at {begin} with shift {exponent}: expected an aligned segment at '
                f'{position}')
        position += width
    require(position == 1 << 15, f'segments end at {position}, expected {1 << 15}')


def _unary(op: Operation) -> None:
    require_shape(op, shapes_of(op)[0][0])
    require_element(op, op.operands[0].type.element_type)


def _reduced(op: Operation) -> None:
    shape = shapes_of(op)[0][0]
    dims = dims_of(op, len(shape))
    require_shape(op, [1 if dim in dims else size for dim, size in enumerate(shape)])


def _reduce_sum(op: Operation) -> None:
    _reduced(op)
    require_requantization(op)


def _reduce_max(op: Operation) -> None:
    _reduced(op)
    require_element(op, op.operands[0].type.element_type)


def _max_pool(op: Operation) -> None:
    (batch, height, width, channels), = shapes_of(op)[0]
    kernel, stride, pad = (attribute(op, name) for name in ('kernel', 'stride', 'pad'))
    dilation, ceil = attribute(op, 'dilation'), attribute(op, 'ceil_mode')
    sizes = [_window(size, kernel[axis], stride[axis], pad[axis] + pad[axis + 2],
                     dilation[axis], ceil) for axis, size in enumerate((height, width))]
    for axis, size in enumerate((height, width)):
        # As in PyTorch: the last window starts inside the input or its leading padding.
        if ceil and (sizes[axis] - 1) * stride[axis] >= size + pad[axis]:
            sizes[axis] -= 1
    require_shape(op, (batch, *sizes, channels))
    require_element(op, op.operands[0].type.element_type)


def _grid_sample(op: Operation) -> None:
    data, grid = shapes_of(op)[0]
    require(grid[0] == data[0] and grid[3] == 2, f'grid has shape {grid}, expected '
            f'({data[0]}, height, width, 2)')
    require_shape(op, grid[:3] + data[3:])
    require_element(op, op.operands[0].type.element_type)
    padding = attribute(op, 'padding')
    require(padding in ('zeros', 'border'), f'padding is zeros or border, found {padding}')
    require_requantization(op, 'x_')
    require_requantization(op, 'y_')


def _topk(op: Operation) -> None:
    shape = list(shapes_of(op)[0][0])
    dim, k = dim_of(attribute(op, 'dim'), len(shape)), attribute(op, 'k')
    require(0 < k <= shape[dim], f'k = {k} of {shape[dim]} elements')
    shape[dim] = k
    require_shape(op, shape)
    require_shape(op, shape, 1)
    require_element(op, op.operands[0].type.element_type)


def _gather(op: Operation) -> None:
    data, indices = shapes_of(op)[0]
    dim = dim_of(attribute(op, 'dim'), len(data))
    require(len(indices) == len(data) and all(
        index <= size for axis, (index, size) in enumerate(zip(indices, data)) if axis != dim),
        f'indices have shape {indices}, the input {data}')
    require_shape(op, indices)
    require_element(op, op.operands[0].type.element_type)


def _where(op: Operation) -> None:
    _broadcast(op, *shapes_of(op)[0])
    given = attribute(op, 'fill') is not None
    require(given == (len(op.operands) == 2), 'a fill is given exactly when there is no other')
    for operand in op.operands[1:]:
        require_element(op, operand.type.element_type)


def _extreme(op: Operation) -> None:
    _broadcast(op, *shapes_of(op)[0])
    for operand in op.operands:
        require_element(op, operand.type.element_type)


VERIFY: dict[str, Callable[[Operation], None]] = {
    'constant': _constant, 'conv2d': _conv2d, 'linear': _linear, 'matmul': _matmul, 'add': _add,
    'sub': _add, 'mul': _mul, 'requantize': _requantize, 'table': _table, 'relu': _unary,
    'reduce_sum': _reduce_sum, 'reduce_max': _reduce_max, 'max_pool': _max_pool,
    'grid_sample': _grid_sample, 'topk': _topk, 'gather': _gather, 'where': _where,
    'max': _extreme, 'min': _extreme,
    **VERIFY_MOVEMENT}
"""Op name without prefix -> check."""
