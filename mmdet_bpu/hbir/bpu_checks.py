"""The checks that operations of the ``bpu`` dialect share; each raises VerifyException."""
from typing import Any, Optional, Sequence

from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.attributes import plain_value
from mmdet_bpu.program.integer_rules import multiplier_fault

Shape = tuple[int, ...]


def attribute(op: Operation, name: str) -> Any:
    """Plain value of an attribute, None if it is left out."""
    return plain_value(op.properties[name]) if name in op.properties else None


def shapes_of(op: Operation) -> tuple[list[Shape], list[Shape]]:
    """Shapes of the operands and of the results."""
    return ([tuple(value.type.get_shape()) for value in op.operands],
            [tuple(value.type.get_shape()) for value in op.results])


def require(condition: bool, message: str) -> None:
    """Raise VerifyException with ``message`` unless ``condition`` holds."""
    if not condition:
        raise VerifyException(message)


def refuse(fault: Optional[str], subject: str = '') -> None:
    """Raise VerifyException for a fault of :mod:`mmdet_bpu.program.integer_rules`."""
    require(fault is None, f'{subject} {fault}'.strip())


def require_shape(op: Operation, expected: Sequence[int], result: int = 0) -> None:
    """A result has the ``expected`` shape."""
    found = tuple(op.results[result].type.get_shape())
    require(found == tuple(expected),
            f'result {result} has shape {found}, expected {tuple(expected)}')


def require_element(op: Operation, element: Attribute, result: int = 0) -> None:
    """A result has elements of type ``element``, scale included."""
    found = op.results[result].type.element_type
    require(found == element, f'result {result} has elements {found}, expected {element}')


def dim_of(dim: int, rank: int) -> int:
    """``dim``, which counts from 0 and lies within the rank."""
    require(0 <= dim < rank, f'dim {dim} is not in [0, {rank})')
    return dim


def dims_of(op: Operation, rank: int) -> set[int]:
    """The attribute ``dims`` as a set of distinct dims within the rank."""
    dims = [dim_of(dim, rank) for dim in attribute(op, 'dims')]
    require(len(set(dims)) == len(dims), f'dims {dims} repeat one')
    return set(dims)


def require_requantization(op: Operation, prefix: str = '', channels: int = 1) -> None:
    """Multiplier and shift pair up, 1 or one per channel, in their range."""
    multiplier, shift = attribute(op, f'{prefix}multiplier'), attribute(op, f'{prefix}shift')
    require(len(multiplier) == len(shift) and len(shift) in (1, channels),
            f'{prefix}multiplier and {prefix}shift have {len(multiplier)} and {len(shift)} '
            f'values, expected 1 or {channels} of each')
    refuse(multiplier_fault(multiplier), f'{prefix}multiplier')
