"""bpu.transpose where the last dimension moves: tiles that stay in the cache while they are turned.

Dimensions that stay together are one. What is then a batch of matrices, (A, B, C) to (A, C, B), is
done here; the reference copies whole rows well where the last dimension keeps its place.
"""
import math
from typing import Optional, Sequence


from mmdet_bpu.kernels.compiled_loops import machine_code, spread
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.memory import int8_at, int16_at, int32_at
from mmdet_bpu.kernels.fast.vector_loops import compiled
from mmdet_bpu.kernels.fusion import Into, Tensors
from mmdet_bpu.program.dtypes import ELEMENT_BYTES
from mmdet_bpu.program.numerics import Operand

# Rows and columns of a tile: both ends of one of int32 take 32 kB.
TILE = 64


def _turn_of(array_at, nbytes):
    """A loop over some columns of a matrix of one element type, all of its rows."""

    @compiled()
    def turn(source, target, rows, columns, first, end):
        for top in range(0, rows, TILE):
            height = min(TILE, rows - top)
            for column in range(first, end):
                y = array_at(target + (column * rows + top) * nbytes, height)
                x = source + (top * columns + column) * nbytes
                for row in range(height):
                    # An array of one element: an index that is computed would be checked.
                    y[row] = array_at(x + row * columns * nbytes, 1)[0]

    return turn


_turn_8, _turn_16, _turn_32 = _turn_of(int8_at, 1), _turn_of(int16_at, 2), _turn_of(int32_at, 4)


@machine_code('void(int64, int64, int64, int64, int64, int64, int64)')
def turn_strips(source, target, rows, columns, nbytes, first, end):
    """Turn strips of TILE columns of matrices that lie one after the other.

    Args:
        source (int): Address of matrices of rows x columns elements.
        target (int): Address of the turned ones.
        rows (int): Rows of a matrix.
        columns (int): Columns of a matrix.
        nbytes (int): Bytes of an element: 1, 2 or 4.
        first (int): First strip, counted through all matrices.
        end (int): Strip after the last one.
    """
    strips = (columns + TILE - 1) // TILE
    for strip in range(first, end):
        offset = strip // strips * rows * columns * nbytes
        left = strip % strips * TILE
        right = min(left + TILE, columns)
        if nbytes == 1:
            _turn_8(source + offset, target + offset, rows, columns, left, right)
        elif nbytes == 2:
            _turn_16(source + offset, target + offset, rows, columns, left, right)
        else:
            _turn_32(source + offset, target + offset, rows, columns, left, right)


def matrices(shape: Sequence[int], dims: Sequence[int]) -> Optional[tuple[int, int, int]]:
    """A, B and C of a transposition from (A, B, C) to (A, C, B); None if it is another one."""
    order = [dim % len(shape) for dim in dims if shape[dim] > 1]
    runs: list[list[int]] = []
    for dim in order:
        before = runs[-1][-1] if runs else None
        if runs and all(shape[between] == 1 for between in range(before + 1, dim)) and dim > before:
            runs[-1].append(dim)
        else:
            runs.append([dim])
    sizes = [math.prod(shape[dim] for dim in run) for run in runs]
    places = sorted(range(len(runs)), key=lambda index: runs[index][0])
    if places == [1, 0]:
        return 1, sizes[1], sizes[0]
    if places == [0, 2, 1]:
        return sizes[0], sizes[2], sizes[1]
    return None


@FAST.into('bpu.transpose')
def plan_transpose(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """bpu.transpose: result dim i is input dim dims[i]."""
    found = matrices(operands[0].shape, attrs['dims'])
    if found is None or 0 in operands[0].shape:
        return None
    batch, rows, columns = found
    nbytes = ELEMENT_BYTES[operands[0].dtype]

    def run(inputs: Tensors, outputs: Tensors) -> None:
        source, target = inputs[0].data_ptr(), outputs[0].data_ptr()
        spread(lambda first, end: turn_strips(source, target, rows, columns, nbytes, first, end),
               batch * -(-columns // TILE), rows * TILE)

    return run
