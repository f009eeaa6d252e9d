"""What the operations at the head of a program demand, which take what a camera gives."""
from typing import Callable

import numpy as np

from mmdet_bpu.program.dtypes import INT32_MAX, integer_range, largest_magnitude
from mmdet_bpu.program.operation_checks import Operation, require, require_shape

VALUES = 256
"""Of a byte: entries of the table of one channel."""
LARGEST_SHIFT = 30
COLORS = (1, 3)
"""Channels of a camera's picture."""


def _image_convert(op: Operation) -> None:
    batch, height, width, channels = op.shapes[0]
    require(channels == 1, f'y has {channels} channels, expected 1')
    if len(op.operands) == 1:
        require_shape(op, op.shapes[0])
        return
    require(height % 2 == width % 2 == 0, f'y has {height} x {width} px, expected even sides')
    expected = (batch, height // 2, width // 2, 2)
    require(op.shapes[1] == expected, f'uv has shape {op.shapes[1]}, expected {expected}')
    require_shape(op, (batch, height, width, 3))


def _image_preprocess(op: Operation) -> None:
    require_shape(op, op.shapes[0])
    channels = op.shapes[0][3]
    require(channels in COLORS, f'image has {channels} channels, expected '
            f'{" or ".join(map(str, COLORS))}')
    for name, count in (('matrix', channels ** 2), ('offset', channels), ('low', channels),
                        ('levels', channels * VALUES)):
        found = len(op.attrs[name])
        require(found == count,
                f'{name} has {found} values, expected {count} for {channels} channels')
    require(0 <= op.attrs['shift'] <= LARGEST_SHIFT,
            f'shift is {op.attrs["shift"]}, expected 0 to {LARGEST_SHIFT}')
    for name, dtype in (('low', 'si8'), ('levels', op.results[0].dtype)):
        low, high = integer_range(dtype)
        values = np.asarray(op.attrs[name])
        require(low <= values.min() and values.max() <= high,
                f'{name} are {values.min()} to {values.max()}, expected {low} to {high}')
    # Python integers: a file may hold any of 64 bits.
    rows = np.asarray(op.attrs['matrix']).reshape(channels, channels).tolist()
    most = max(sum(map(abs, row)) * largest_magnitude('si8') + abs(offset)
               for row, offset in zip(rows, map(int, op.attrs['offset'])))
    require(most <= INT32_MAX,
            f'sums of matrix and offset reach {most}, expected at most {INT32_MAX}')


IMAGE_RULES: dict[str, Callable[[Operation], None]] = {
    'image_convert': _image_convert, 'image_preprocess': _image_preprocess}
"""Name without prefix -> rule."""
