"""What the operations of the ``bpu`` dialect demand of shapes, scales and attribute values.

Each check gets an operation whose signature holds and raises VerifyException with the reason.
"""
from typing import Callable

import numpy as np
from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.bpu_checks import (Shape, attribute, dim_of, dims_of, refuse, require,
                                       require_element, require_requantization, require_shape,
                                       shapes_of)
from mmdet_bpu.hbir.bpu_movement import VERIFY_MOVEMENT
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.deformable_samples import FRACTION_RANGE, sample_range
from mmdet_bpu.program.integer_rules import padding_fault, product_fault, table_fault
from mmdet_bpu.program.resize_positions import FRACTION_RULE, fractions_fit


def _one_side_int8(op: Operation, left: int = 0, right: int = 1) -> None:
    refuse(product_fault(*(value_type(op.operands[index]).dtype for index in (left, right))))


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


def _channels(op: Operation) -> int:
    """Output channels of a convolution whose groups fit both sides."""
    channels, (out, *_, group_channels) = shapes_of(op)[0][0][3], shapes_of(op)[0][1]
    groups = attribute(op, 'groups')
    require(groups > 0 and group_channels * groups == channels and out % groups == 0,
            f'input has {channels} channels, weight {group_channels} x {groups} groups '
            f'for {out} output channels')
    return out


def _windows(op: Operation) -> Shape:
    """The shape that input, weight and geometry of a convolution give."""
    (batch, height, width, _), (_, kh, kw, _) = shapes_of(op)[0][:2]
    out = _channels(op)
    stride, pad, dilation = (attribute(op, name) for name in ('stride', 'pad', 'dilation'))
    return (batch, _window(height, kh, stride[0], pad[0] + pad[2], dilation[0], False),
            _window(width, kw, stride[1], pad[1] + pad[3], dilation[1], False), out)


def _conv2d(op: Operation) -> None:
    expected = _windows(op)
    require_shape(op, expected)
    _accumulation(op, expected[-1])


def _deform_conv2d(op: Operation) -> None:
    operands, _ = shapes_of(op)
    expected = _windows(op)
    require_shape(op, expected)
    require(operands[2] == expected[-1:], f'bias has shape {operands[2]}, expected '
            f'{expected[-1:]}')
    groups = attribute(op, 'offset_groups')
    require(groups > 0 and operands[0][3] % groups == 0,
            f'{groups} offset groups of {operands[0][3]} channels')
    maps = groups * operands[1][1] * operands[1][2]
    for name, shape, channels in zip(('offset', 'mask'), operands[3:], (2 * maps, maps)):
        require(shape == (*expected[:3], channels), f'{name} has shape {shape}, expected '
                f'{(*expected[:3], channels)}')
    require_requantization(op, channels=expected[-1])
    require_requantization(op, 'offset_')
    for name, allowed in (('fraction_bits', FRACTION_RANGE),
                          ('sample_bits', sample_range(attribute(op, 'fraction_bits')))):
        require(attribute(op, name) in allowed, f'{name} is {attribute(op, name)}, expected '
                f'{allowed[0]} to {allowed[-1]}')


def _conv_transpose2d(op: Operation) -> None:
    (batch, height, width, _), (out, *kernel, _) = shapes_of(op)[0][:2]
    stride, pad, dilation = (attribute(op, name) for name in ('stride', 'pad', 'dilation'))
    _channels(op)
    sizes = []
    for axis, size in enumerate((height, width)):
        before, after = pad[axis], pad[axis + 2]
        require(min(kernel[axis], stride[axis], dilation[axis]) > 0,
                f'kernel {kernel}, stride {stride} and dilation {dilation} must be positive')
        require(before >= 0 and -after < max(stride[axis], dilation[axis]),
                f'padding {pad} is negative in front, or adds a stride or more behind')
        sizes.append((size - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
                     - before - after)
    require(min(sizes) > 0, f'padding {pad} leaves nothing of the result')
    require_shape(op, (batch, *sizes, out))
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
    refuse(table_fault(value_type(op.operands[0]).dtype, len(attribute(op, 'entries')),
                       attribute(op, 'segment_start'), attribute(op, 'segment_shift')))


def _reduced(op: Operation) -> None:
    shape = shapes_of(op)[0][0]
    dims = dims_of(op, len(shape))
    require_shape(op, [1 if dim in dims else size for dim, size in enumerate(shape)])


def _reduce_sum(op: Operation) -> None:
    _reduced(op)
    require_requantization(op)


def _reduce_extreme(op: Operation) -> None:
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


def _avg_pool(op: Operation) -> None:
    (batch, height, width, channels), = shapes_of(op)[0]
    kernel, stride = attribute(op, 'kernel'), attribute(op, 'stride')
    sizes = [_window(size, kernel[axis], stride[axis], 0, 1, False)
             for axis, size in enumerate((height, width))]
    require(min(sizes) > 0, f'a window of {kernel} is larger than the input')
    require_shape(op, (batch, *sizes, channels))
    require_requantization(op)


def _grid_sample(op: Operation) -> None:
    data, grid = shapes_of(op)[0]
    require(grid[0] == data[0] and grid[3] == 2, f'grid has shape {grid}, expected '
            f'({data[0]}, height, width, 2)')
    require_shape(op, grid[:3] + data[3:])
    require_element(op, op.operands[0].type.element_type)
    refuse(padding_fault(attribute(op, 'padding')))
    require_requantization(op, 'x_')
    require_requantization(op, 'y_')


def _resize(op: Operation) -> None:
    batch, height, width, channels = shapes_of(op)[0][0]
    size, mode = attribute(op, 'size'), attribute(op, 'mode')
    require(min(size) > 0, f'size {size} is not positive')
    require_shape(op, (batch, *size, channels))
    require_element(op, op.operands[0].type.element_type)
    require(mode in ('nearest', 'bilinear'), f'mode is nearest or bilinear, found {mode}')
    position, fraction = attribute(op, 'position_bits'), attribute(op, 'fraction_bits')
    require(fractions_fit(position, fraction), f'{FRACTION_RULE}, found {fraction} and {position}')


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


def _sign(op: Operation) -> None:
    require_shape(op, shapes_of(op)[0][0])


def _where(op: Operation) -> None:
    _broadcast(op, *shapes_of(op)[0])
    given = attribute(op, 'fill') is not None
    require(given == (len(op.operands) == 2), 'a fill is given exactly when there is no other')
    for operand in op.operands[1:]:
        require_element(op, operand.type.element_type)


def _chosen(op: Operation) -> None:
    """Elements of one operand or of several, which are of one type."""
    _broadcast(op, *shapes_of(op)[0])
    for operand in op.operands:
        require_element(op, operand.type.element_type)


VERIFY: dict[str, Callable[[Operation], None]] = {
    'constant': _constant, 'conv2d': _conv2d, 'conv_transpose2d': _conv_transpose2d,
    'deform_conv2d': _deform_conv2d, 'linear': _linear, 'matmul': _matmul, 'add': _add, 'sub': _add,
    'mul': _mul, 'requantize': _requantize, 'table': _table, 'relu': _chosen,
    'reduce_sum': _reduce_sum, 'reduce_max': _reduce_extreme, 'reduce_min': _reduce_extreme,
    'max_pool': _max_pool, 'max': _chosen, 'min': _chosen,
    'avg_pool': _avg_pool, 'grid_sample': _grid_sample, 'resize': _resize, 'topk': _topk,
    'gather': _gather, 'where': _where,
    'positive': _sign, 'not_negative': _sign, **VERIFY_MOVEMENT}
"""Op name without prefix -> check."""
