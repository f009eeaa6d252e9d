"""How a tensor that is broadcast lies in the rows and columns of the vector machine.

An operation's result is cut in rows of ``size`` elements, in row-major order. A tensor that is
broadcast to it then gives a row of elements, or one element, per row, each row at an offset that
the outer dimensions decide.
"""
import math
from dataclasses import dataclass
from typing import Optional, Sequence

from mmdet_bpu.kernels.fast.vector_loops import COLUMN, FULL, ROW
from mmdet_bpu.kernels.fast.vector_machine import MAX_DIMS

Dims = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Layout:
    """Where the rows of a tensor come from.

    Attributes:
        kind (int): Of the register: FULL, ROW, or COLUMN where all rows are the same.
        outer (tuple): Size and stride, in elements, of the outer dimensions. One of stride 0 where
            all rows are the same.
        dense (bool): Rows lie one after the other and nothing is repeated.
        cost (float): Time to load an element of the result, in that of a vectorized operation.
        repeat (tuple | None): Shape to give the tensor, and shape to expand it to then, so that
            its rows lie in one piece; None where they do.
    """
    kind: int
    outer: Dims
    dense: bool
    cost: float
    repeat: Optional[tuple[tuple[int, ...], tuple[int, ...]]] = None

    @property
    def shared(self) -> bool:
        """Whether all rows are the same."""
        return all(stride == 0 for _, stride in self.outer)


def layout(shape: Sequence[int], operand: Sequence[int], size: int) -> Optional[Layout]:
    """Cut an operand that is broadcast to a result's shape.

    Args:
        shape (Sequence[int]): Of the result; no dimension is empty.
        operand (Sequence[int]): Shape of the operand.
        size (int): Elements of a row.

    Returns:
        Layout | None: None where rows of that size cut across dimensions.
    """
    split = _split(_strides(shape, operand), size)
    if split is None:
        return None
    outer, inner = split
    rows = math.prod(shape) // size
    kind, width, repeat, cost = FULL, size, None, 0.
    if all(stride == 0 for _, stride in inner):
        kind, width = ROW, 1
    elif not _contiguous(inner):
        own = [count if stride else 1 for count, stride in outer]
        whole = (*own, *(count for count, _ in inner))
        repeat = (*own, *(count if stride else 1 for count, stride in inner)), whole
        cost = 4 * math.prod(whole) / math.prod(shape)
        outer = tuple((count, stride and math.prod(own[dim + 1:]) * size)
                      for dim, (count, stride) in enumerate(outer))
    outer = _merged(outer) or ((1, width), )
    if len(outer) > MAX_DIMS:
        return None
    if all(stride == 0 for _, stride in outer):
        return Layout(ROW if kind == ROW else COLUMN, ((rows, 0), ), False, cost, repeat)
    in_order = len(outer) == 1 and outer[0][1] == width
    cost += width / size + (0 if in_order else 12 * len(outer) / size)
    return Layout(kind, outer, in_order and repeat is None, cost, repeat)


def _strides(shape: Sequence[int], operand: Sequence[int]) -> Dims:
    """Size and stride of each dimension of the result that is not 1."""
    sizes = (1, ) * (len(shape) - len(operand)) + tuple(operand)
    strides = [math.prod(sizes[dim + 1:]) if size > 1 else 0 for dim, size in enumerate(sizes)]
    return tuple((count, stride) for count, stride in zip(shape, strides) if count > 1)


def _split(dims: Dims, size: int) -> Optional[tuple[Dims, Dims]]:
    """Dimensions outside of a row and those within."""
    outer, inner, left = list(dims), [], size
    while left > 1:
        if not outer:
            return None
        count, stride = outer.pop()
        if left % count == 0:
            inner.append((count, stride))
            left //= count
        elif count % left == 0:
            inner.append((left, stride))
            outer.append((count // left, stride * left))
            left = 1
        else:
            return None
    return tuple(outer), tuple(inner[::-1])


def _contiguous(dims: Dims) -> bool:
    """Whether elements lie one after the other."""
    return all(stride == math.prod(count for count, _ in dims[dim + 1:])
               for dim, (_, stride) in enumerate(dims))


def _merged(dims: Dims) -> Dims:
    """Neighbouring dimensions that one stride covers become one."""
    merged: list[tuple[int, int]] = []
    for count, stride in dims:
        if merged and merged[-1][1] == count * stride:
            merged[-1] = (merged[-1][0] * count, stride)
        else:
            merged.append((count, stride))
    return tuple(merged)
