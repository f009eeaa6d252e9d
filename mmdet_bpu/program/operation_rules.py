"""What the integer operations demand of shapes, scales and attribute values.

Each rule gets an operation whose signature holds and raises OperationFault with the reason.
"""
from typing import Callable

import numpy as np

from mmdet_bpu.program.deformable_samples import FRACTION_RANGE, sample_range
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.integer_rules import padding_fault, product_fault, table_fault
from mmdet_bpu.program.image_rules import IMAGE_RULES
from mmdet_bpu.program.movement_rules import MOVEMENT_RULES
from mmdet_bpu.program.operation_checks import (MAX_WINDOW, Operation, OperationFault, Shape,
                                                dim_of, dims_of, refuse, require, require_element,
                                                require_requantization, require_shape,
                                                require_sizes, require_value, window_steps)
from mmdet_bpu.program.resize_positions import FRACTION_RULE, fractions_fit
from mmdet_bpu.program.sampling_grid import MAX_FRACTION_BITS, POSITION_LIMIT

MAX_GUARD_BITS = 30


def _one_side_int8(op: Operation, left: int = 0, right: int = 1) -> None:
    refuse(product_fault(*(op.operands[index].dtype for index in (left, right))))


def _accumulation(op: Operation, channels: int) -> None:
    """Checks shared by conv2d and linear: bias, epilogue and residual."""
    _one_side_int8(op)
    operands, result = op.shapes, op.results[0].shape
    require(operands[2] == (channels,), f'bias has shape {operands[2]}, expected ({channels},)')
    require_requantization(op, channels=channels)
    has_residual = len(operands) == 4
    given = [op.attrs.get(name) is not None for name in ('residual_multiplier', 'residual_shift')]
    require(given == [has_residual] * 2, 'residual_multiplier and residual_shift are given '
            'exactly when there is a residual')
    if has_residual:
        require(operands[3] == result, f'residual has shape {operands[3]}, the result {result}')
        require_requantization(op, 'residual_', channels)


def _channels(op: Operation) -> int:
    """Output channels of a convolution whose groups fit both sides."""
    channels, (out, *_, group_channels) = op.shapes[0][3], op.shapes[1]
    groups = op.attrs['groups']
    require(groups > 0 and group_channels * groups == channels and out % groups == 0,
            f'input has {channels} channels, weight {group_channels} x {groups} groups '
            f'for {out} output channels')
    return out


def _windows(op: Operation) -> Shape:
    """The shape that input, weight and geometry of a convolution give."""
    (batch, height, width, _), (_, kh, kw, _) = op.shapes[:2]
    out = _channels(op)
    stride, pad, dilation = (op.integers(name) for name in ('stride', 'pad', 'dilation'))
    return (batch, window_steps(height, kh, stride[0], pad[0::2], dilation[0]),
            window_steps(width, kw, stride[1], pad[1::2], dilation[1]), out)


def _conv2d(op: Operation) -> None:
    expected = _windows(op)
    require_shape(op, expected)
    _accumulation(op, expected[-1])


def _deform_conv2d(op: Operation) -> None:
    operands = op.shapes
    expected = _windows(op)
    require_shape(op, expected)
    require(operands[2] == expected[-1:], f'bias has shape {operands[2]}, expected '
            f'{expected[-1:]}')
    groups = op.attrs['offset_groups']
    require(groups > 0 and operands[0][3] % groups == 0,
            f'{groups} offset groups of {operands[0][3]} channels')
    maps = groups * operands[1][1] * operands[1][2]
    for name, shape, channels in zip(('offset', 'mask'), operands[3:], (2 * maps, maps)):
        require(shape == (*expected[:3], channels), f'{name} has shape {shape}, expected '
                f'{(*expected[:3], channels)}')
    require_requantization(op, channels=expected[-1])
    require_requantization(op, 'offset_')
    for name, allowed in (('fraction_bits', FRACTION_RANGE),
                          ('sample_bits', sample_range(op.attrs['fraction_bits']))):
        require(op.attrs[name] in allowed, f'{name} is {op.attrs[name]}, expected '
                f'{allowed[0]} to {allowed[-1]}')


def _conv_transpose2d(op: Operation) -> None:
    (batch, height, width, _), (out, *kernel, _) = op.shapes[:2]
    stride, pad, dilation = (op.integers(name) for name in ('stride', 'pad', 'dilation'))
    _channels(op)
    sizes = []
    for axis, size in enumerate((height, width)):
        before, after = pad[axis], pad[axis + 2]
        require(min(kernel[axis], stride[axis], dilation[axis]) > 0,
                f'kernel {kernel}, stride {stride} and dilation {dilation} must be positive')
        require(max(*stride, dilation[axis] * kernel[axis], *pad) <= MAX_WINDOW,
                f'kernel {kernel}, stride {stride}, dilation {dilation} and padding {pad} must be '
                f'at most {MAX_WINDOW}')
        require(before >= 0 and -after < max(stride[axis], dilation[axis]),
                f'padding {pad} is negative in front, or adds a stride or more behind')
        sizes.append((size - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
                     - before - after)
    require(min(sizes) > 0, f'padding {pad} leaves nothing of the result')
    require_shape(op, (batch, *sizes, out))
    _accumulation(op, out)


def _linear(op: Operation) -> None:
    data, (out, channels) = op.shapes[:2]
    require(len(data) > 0, 'input has no channels')
    require(data[-1] == channels, f'input has {data[-1]} channels, weight {channels}')
    require_shape(op, data[:-1] + (out,))
    _accumulation(op, out)


def _matmul(op: Operation) -> None:
    lhs, rhs = op.shapes
    require(len(lhs) == len(rhs) >= 2 and lhs[:-2] == rhs[:-2] and lhs[-1] == rhs[-2],
            f'shapes {lhs} and {rhs} cannot be multiplied')
    require_shape(op, lhs[:-1] + rhs[-1:])
    _one_side_int8(op)
    require_requantization(op)


def _broadcast(op: Operation, *shapes: Shape) -> None:
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        raise OperationFault(f'shapes {shapes} do not broadcast') from None
    require_shape(op, expected)


def _add(op: Operation) -> None:
    _broadcast(op, *op.shapes)
    require(0 <= op.attrs['guard_bits'] <= MAX_GUARD_BITS,
            f'guard_bits is {op.attrs["guard_bits"]}, expected 0 to {MAX_GUARD_BITS}')
    require_requantization(op, 'lhs_')
    require_requantization(op, 'rhs_')


def _mul(op: Operation) -> None:
    _broadcast(op, *op.shapes)
    require_requantization(op)


def _requantize(op: Operation) -> None:
    require_shape(op, op.shapes[0])
    require_requantization(op)


def _table(op: Operation) -> None:
    require_shape(op, op.shapes[0])
    refuse(table_fault(op.operands[0].dtype, len(op.attrs['entries']),
                       op.attrs.get('segment_start'), op.attrs.get('segment_shift')))
    low, high = integer_range(op.results[0].dtype)
    entries = np.asarray(op.attrs['entries'])
    require(low <= entries.min() and entries.max() <= high,
            f'entries {entries.min()} to {entries.max()} leave {op.results[0].dtype}')


def _reduced(op: Operation) -> None:
    shape = op.shapes[0]
    dims = dims_of(op, len(shape))
    require_shape(op, [1 if dim in dims else size for dim, size in enumerate(shape)])


def _reduce_sum(op: Operation) -> None:
    _reduced(op)
    require_requantization(op)


def _reduce_extreme(op: Operation) -> None:
    _reduced(op)
    require_element(op, op.operands[0].element)


def _max_pool(op: Operation) -> None:
    (batch, height, width, channels), = op.shapes
    kernel, stride, pad = (op.integers(name) for name in ('kernel', 'stride', 'pad'))
    dilation, ceil = op.integers('dilation'), op.attrs['ceil_mode']
    sizes = [window_steps(size, kernel[axis], stride[axis], pad[axis::2], dilation[axis],
                          ceil) for axis, size in enumerate((height, width))]
    for axis, size in enumerate((height, width)):
        # As in PyTorch: the last window starts inside the input or its leading padding.
        if ceil and (sizes[axis] - 1) * stride[axis] >= size + pad[axis]:
            sizes[axis] -= 1
    require_shape(op, (batch, *sizes, channels))
    require_element(op, op.operands[0].element)


def _avg_pool(op: Operation) -> None:
    (batch, height, width, channels), = op.shapes
    kernel, stride = op.integers('kernel'), op.integers('stride')
    sizes = [window_steps(size, kernel[axis], stride[axis], [0], 1)
             for axis, size in enumerate((height, width))]
    require(min(sizes) > 0, f'a window of {kernel} is larger than the input')
    require_shape(op, (batch, *sizes, channels))
    require_requantization(op)


def _grid_sample(op: Operation) -> None:
    data, grid = op.shapes
    require(grid[0] == data[0] and grid[3] == 2, f'grid has shape {grid}, expected '
            f'({data[0]}, height, width, 2)')
    require_shape(op, grid[:3] + data[3:])
    require_element(op, op.operands[0].element)
    refuse(padding_fault(op.attrs['padding']))
    require_requantization(op, 'x_')
    require_requantization(op, 'y_')
    bits = op.attrs['fraction_bits']
    require(1 <= bits <= MAX_FRACTION_BITS,
            f'fraction_bits is {bits}, expected 1 to {MAX_FRACTION_BITS}')
    reach = [max(data[1:3]) << bits, *(abs(op.attrs[f'{axis}_offset']) for axis in 'xy')]
    require(max(reach) <= POSITION_LIMIT, f'positions to {max(reach)} do not fit 30 bits')


def _resize(op: Operation) -> None:
    batch, height, width, channels = op.shapes[0]
    size, mode = op.integers('size'), op.attrs['mode']
    require(min(size) > 0, f'size {size} is not positive')
    require(max(*size, height, width) <= MAX_WINDOW, f'a side is longer than {MAX_WINDOW}')
    require_shape(op, (batch, *size, channels))
    require_element(op, op.operands[0].element)
    require(mode in ('nearest', 'bilinear'), f'mode is nearest or bilinear, found {mode}')
    position, fraction = op.attrs['position_bits'], op.attrs['fraction_bits']
    require(fractions_fit(position, fraction), f'{FRACTION_RULE}, found {fraction} and {position}')


def _topk(op: Operation) -> None:
    shape = list(op.shapes[0])
    dim, k = dim_of(op.attrs['dim'], len(shape)), op.attrs['k']
    require(0 < k <= shape[dim], f'k = {k} of {shape[dim]} elements')
    shape[dim] = k
    require_shape(op, shape)
    require_shape(op, shape, 1)
    require_element(op, op.operands[0].element)


def _gather(op: Operation) -> None:
    data, indices = op.shapes
    dim = dim_of(op.attrs['dim'], len(data))
    require(len(indices) == len(data) and all(
        index <= size for axis, (index, size) in enumerate(zip(indices, data)) if axis != dim),
        f'indices have shape {indices}, the input {data}')
    require_shape(op, indices)
    require_element(op, op.operands[0].element)


def _sign(op: Operation) -> None:
    require_shape(op, op.shapes[0])


def _where(op: Operation) -> None:
    _broadcast(op, *op.shapes)
    given = op.attrs.get('fill') is not None
    require(given == (len(op.operands) == 2), 'a fill is given exactly when there is no other')
    if given:
        require_value(op, 'fill')
    for operand in op.operands[1:]:
        require_element(op, operand.element)


def _chosen(op: Operation) -> None:
    """Elements of one operand or of several, which are of one type."""
    _broadcast(op, *op.shapes)
    for operand in op.operands:
        require_element(op, operand.element)


RULES: dict[str, Callable[[Operation], None]] = {
    'conv2d': _conv2d, 'conv_transpose2d': _conv_transpose2d,
    'deform_conv2d': _deform_conv2d, 'linear': _linear, 'matmul': _matmul, 'add': _add, 'sub': _add,
    'mul': _mul, 'requantize': _requantize, 'table': _table, 'relu': _chosen,
    'reduce_sum': _reduce_sum, 'reduce_max': _reduce_extreme, 'reduce_min': _reduce_extreme,
    'max_pool': _max_pool, 'max': _chosen, 'min': _chosen,
    'avg_pool': _avg_pool, 'grid_sample': _grid_sample, 'resize': _resize, 'topk': _topk,
    'gather': _gather, 'where': _where,
    'positive': _sign, 'not_negative': _sign, **MOVEMENT_RULES, **IMAGE_RULES}
"""Name without prefix -> rule."""


def check_operation(name: str, op: Operation) -> None:
    """Check an operation whose operands, results and attributes are those of its signature.

    Raises:
        OperationFault: With the reason.
    """
    require_sizes(op.operands, 'operand')
    RULES[name](op)
    require_sizes(op.results, 'result')
