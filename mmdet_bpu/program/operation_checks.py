"""An operation as its rules see it, and the checks that they share.

The IR and a program read from a file are both shown to the rules as an :class:`Operation`, so that
one set of rules holds for both.
"""
from dataclasses import dataclass
from typing import Any, Hashable, Mapping, Optional, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import INT32_MAX, integer_range
from mmdet_bpu.program.integer_rules import multiplier_fault, shift_fault

Shape = tuple[int, ...]

MAX_RANK = 16
MAX_ELEMENTS = INT32_MAX
"""Of one tensor: its elements are counted in int32."""
MAX_WINDOW = 1 << 16
"""Largest window, stride or padding along one axis, and largest side of what is resized."""


class OperationFault(BpuError):
    """What is wrong with an operation; who asks adds the place."""


@dataclass(frozen=True)
class Tensor:
    """An operand or a result.

    Attributes:
        shape (tuple[int, ...]): Static shape.
        dtype (str): Element name.
        element (Hashable): Equal for tensors of the same dtype and scale; printed in messages.
        per_channel (bool): Whether it has a scale for each channel. Defaults to False.
    """
    shape: Shape
    dtype: str
    element: Hashable
    per_channel: bool = False


@dataclass(frozen=True)
class Operation:
    """An operation whose operands, results and attributes are those of its signature.

    Attributes:
        operands (tuple[Tensor, ...]): In the order of the signature.
        results (tuple[Tensor, ...]): In the order of the signature.
        attrs (Mapping[str, Any]): Plain values; lists of integers may be numpy arrays.
    """
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    attrs: Mapping[str, Any]

    @property
    def shapes(self) -> list[Shape]:
        """Of the operands."""
        return [operand.shape for operand in self.operands]

    def integers(self, name: str) -> list[int]:
        """An attribute that has a value for each dim or side, never many."""
        values = self.attrs[name]
        require(len(values) <= MAX_RANK, f'{name} has {len(values)} values')
        return [int(value) for value in values]


def require(condition: bool, message: str) -> None:
    """Raise OperationFault with ``message`` unless ``condition`` holds."""
    if not condition:
        raise OperationFault(message)


def refuse(fault: Optional[str], subject: str = '') -> None:
    """Raise OperationFault for a fault of :mod:`mmdet_bpu.program.integer_rules`."""
    require(fault is None, f'{subject} {fault}'.strip())


def require_sizes(tensors: Sequence[Tensor], what: str) -> None:
    """Shapes are static, not empty, of a rank that the kernels take, and not too large."""
    for index, tensor in enumerate(tensors):
        shape, count = tensor.shape, 1
        for size in shape:
            count *= max(size, 1)
        require(len(shape) <= MAX_RANK and all(size > 0 for size in shape)
                and count <= MAX_ELEMENTS,
                f'{what} {index} has shape {shape}, expected at most {MAX_RANK} sizes of 1 or '
                f'more and at most {MAX_ELEMENTS} elements')


def require_shape(op: Operation, expected: Sequence[int], result: int = 0) -> None:
    """A result has the ``expected`` shape."""
    found = op.results[result].shape
    require(found == tuple(expected),
            f'result {result} has shape {found}, expected {tuple(expected)}')


def require_element(op: Operation, element: Hashable, result: int = 0) -> None:
    """A result has elements of type ``element``, scale included."""
    found = op.results[result].element
    require(found == element, f'result {result} has elements {found}, expected {element}')


def require_value(op: Operation, name: str) -> None:
    """An attribute that becomes an element of the result is in the range of its type."""
    low, high = integer_range(op.results[0].dtype)
    value = op.attrs[name]
    require(low <= value <= high, f'{name} is {value}, expected {low} to {high}')


def dim_of(dim: int, rank: int) -> int:
    """``dim``, which counts from 0 and lies within the rank."""
    require(0 <= dim < rank, f'dim {dim} is not in [0, {rank})')
    return dim


def dims_of(op: Operation, rank: int) -> set[int]:
    """The attribute ``dims`` as a set of distinct dims within the rank, at least one."""
    dims = [dim_of(dim, rank) for dim in op.integers('dims')]
    require(len(set(dims)) == len(dims), f'dims {dims} repeat one')
    require(len(dims) > 0, 'dims is empty')
    return set(dims)


def require_requantization(op: Operation, prefix: str = '', channels: int = 1) -> None:
    """Multiplier and shift pair up, 1 or one per channel, in their range."""
    multiplier, shift = op.attrs[f'{prefix}multiplier'], op.attrs[f'{prefix}shift']
    require(len(multiplier) == len(shift) and len(shift) in (1, channels),
            f'{prefix}multiplier and {prefix}shift have {len(multiplier)} and {len(shift)} '
            f'values, expected 1 or {channels} of each')
    refuse(multiplier_fault(np.asarray(multiplier)), f'{prefix}multiplier')
    refuse(shift_fault(np.asarray(shift)), f'{prefix}shift')


def window_steps(size: int, kernel: int, stride: int, pad: Sequence[int], dilation: int,
                 ceil: bool = False) -> int:
    """Places of a window along one axis."""
    require(min(kernel, stride, dilation) > 0 and min(pad) >= 0,
            f'kernel {kernel}, stride {stride}, dilation {dilation} and padding {sum(pad)} must '
            'be positive')
    require(max(kernel, stride, dilation * kernel, *pad) <= MAX_WINDOW,
            f'kernel {kernel}, stride {stride}, dilation {dilation} and padding {sum(pad)} must '
            f'be at most {MAX_WINDOW}')
    span = size + sum(pad) - dilation * (kernel - 1) - 1
    steps = -(-span // stride) if ceil else span // stride
    return steps + 1
