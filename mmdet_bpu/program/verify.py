"""Whether a program is one: checked as a whole before anything is made of it.

A program may come from a file that somebody wrote by hand. Names, types, shapes and attributes are
compared with the signatures of :mod:`mmdet_bpu.program.operations` and the rules of
:mod:`mmdet_bpu.program.operation_rules`, and what it asks for with the budget. What a program that
passed can still do wrong depends on its weights: an accumulator that leaves int32 is refused when
its kernel is planned.
"""
import math
from collections import Counter
from numbers import Integral
from typing import Any, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.costs import check_budget
from mmdet_bpu.program.dtypes import ELEMENT_TYPES
from mmdet_bpu.program.json_text import INT64
from mmdet_bpu.program.operation_checks import (Operation, OperationFault, Tensor, require,
                                                require_sizes)
from mmdet_bpu.program.operation_rules import RULES, check_operation
from mmdet_bpu.program.operations import OPERATIONS, PREFIX
from mmdet_bpu.program.program import Instruction, Program, Value
from mmdet_bpu.program.signatures import OpSpec, ValueSpec

_PLAIN_KINDS = {'i64': int, 'bool': bool, 'str': str}


def verify_program(program: Program, constants: Sequence[str], stored_bytes: int) -> None:
    """Check a program.

    Args:
        program (Program): Its names are strings, its types those that
            :class:`~mmdet_bpu.program.program.TensorType` names; the data of constants need not be
            there yet.
        constants (Sequence[str]): Names of the values that are constants.
        stored_bytes (int): What their file holds of them.

    Raises:
        BpuError: Names the value, or the operation with its site, and the reason.
    """
    for value in program.values.values():
        try:
            _check_value(value)
        except OperationFault as fault:
            raise BpuError(f'value {value.name[:80]!r}: {fault}') from None
    _check_names(program, set(constants))
    for instruction in program.instructions:
        try:
            check_operation(instruction.op.removeprefix(PREFIX), _operation(program, instruction))
        except OperationFault as fault:
            raise BpuError(f'{instruction.op} at {instruction.site[:80]!r}: {fault}') from None
    check_budget(program, constants, stored_bytes)


def _check_value(value: Value) -> None:
    kind = value.type
    require(kind.dtype in ELEMENT_TYPES, f'expected elements of {", ".join(ELEMENT_TYPES)}, found '
            f'{kind.dtype[:80]!r}')
    require(kind.scale is None or (math.isfinite(kind.scale) and kind.scale > 0),
            f'expected a positive finite scale, found {kind.scale}')
    require_sizes([Tensor(kind.shape, kind.dtype, kind.dtype)], 'tensor')


def _check_names(program: Program, constants: set[str]) -> None:
    """Every value is an input, a constant or made by one instruction, and what is used is there."""
    made = [*program.inputs, *constants]
    for instruction in program.instructions:
        if instruction.op.removeprefix(PREFIX) not in RULES or instruction.op[:4] != PREFIX:
            raise BpuError(f'no integer kernel for {instruction.op[:80]!r}: expected one of '
                           f'{", ".join(PREFIX + name for name in RULES)}; a program with it was '
                           'made by another version of mmdet_bpu')
        made += instruction.outputs
    once = Counter(made)
    if len(once) != len(made):
        raise BpuError(f'{once.most_common(1)[0][0][:80]!r} is made more than once')
    for instruction in program.instructions:
        for name in [*instruction.inputs, *instruction.outputs]:
            if name not in program.values or name not in once:
                raise BpuError(f'no place for {name[:80]!r} of {instruction.op} at '
                               f'{instruction.site[:80]!r}: nothing makes it')
    for what, names in (('input', program.inputs), ('output', program.outputs)):
        for name in names:
            if name not in program.values or name not in once or (
                    what == 'output' and name in constants):
                raise BpuError(f'no place for the {what} {name[:80]!r}: nothing makes it')
    if len(set(program.outputs)) != len(program.outputs):
        raise BpuError('an output is named twice')
    unmade = [name for name in program.values if name not in once]
    if unmade:
        raise BpuError(f'nothing makes the value {unmade[0][:80]!r}')


def _operation(program: Program, instruction: Instruction) -> Operation:
    """An instruction as the rules see it, its signature checked."""
    spec = OPERATIONS[instruction.op.removeprefix(PREFIX)]
    operands = _tensors(program, instruction.inputs, spec.operands, 'operand')
    results = _tensors(program, instruction.outputs, spec.results, 'result')
    _check_attributes(instruction.attrs, spec)
    return Operation(operands, results, instruction.attrs)


def _tensors(program: Program, names: Sequence[str], specs: Sequence[ValueSpec],
             what: str) -> tuple[Tensor, ...]:
    kinds = [program.values[name].type for name in names]
    if len(specs) == 1 and specs[0].variadic:
        specs = list(specs) * len(kinds)
    least = sum(not spec.may_be_left_out for spec in specs)
    require(least <= len(kinds) <= len(specs),
            f'expected {least} to {len(specs)} {what}s, found {len(kinds)}')
    for index, (spec, kind) in enumerate(zip(specs, kinds)):
        require(kind.dtype in spec.elements and spec.rank in (None, len(kind.shape)),
                f'{what} {index}, {spec.name}: expected a tensor of {" or ".join(spec.elements)}'
                + ('' if spec.rank is None else f' with rank {spec.rank}')
                + f', found {kind.dtype} of shape {kind.shape}')
    return tuple(Tensor(kind.shape, kind.dtype, (kind.dtype, kind.scale)) for kind in kinds)


def _check_attributes(attrs: dict[str, Any], spec: OpSpec) -> None:
    unknown = sorted(attrs.keys() - spec.attributes.keys())
    require(not unknown, f'it has no attribute {str(unknown[:1])[:80]}')
    for name, (kind, required) in spec.attributes.items():
        value = attrs.get(name)
        if value is None:
            require(not required and name not in attrs, f'expected the attribute {name}')
        else:
            require(_is_of(kind, value), f'attribute {name}: expected {kind}, found '
                    f'{str(value)[:80]}')


def _is_of(kind: str, value: Any) -> bool:
    base, _, length = kind.rstrip(']').partition('[')
    if base == 'ints':
        return _are_integers(value) and (not length or len(value) == int(length))
    if base == 'i64':
        return _is_int64(value)
    return type(value) is _PLAIN_KINDS[base]


def _are_integers(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype == np.int64
    if not isinstance(value, (list, tuple)):
        return False
    if set(map(type, value)) == {int}:
        return min(value) in INT64 and max(value) in INT64
    return all(map(_is_int64, value))


def _is_int64(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_)) \
        and int(value) in INT64
