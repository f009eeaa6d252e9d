"""Operations of the ``bpu`` dialect shown to the rules of the integer operations.

The rules are those of :mod:`mmdet_bpu.program.operation_rules`, which also hold for programs that
are read from a file; a constant, which is a value there, has its own here.
"""
from functools import partial
from typing import Callable

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.attributes import plain_value
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.operation_checks import Operation as PlainOperation
from mmdet_bpu.program.operation_checks import OperationFault, Tensor
from mmdet_bpu.program.operation_rules import RULES, check_operation


def _tensor(value: SSAValue) -> Tensor:
    shape, dtype, scale = value_type(value)
    return Tensor(shape, dtype, value.type.element_type, isinstance(scale, np.ndarray))


def plain_operation(op: Operation) -> PlainOperation:
    """An operation as the rules see it."""
    return PlainOperation(
        tuple(map(_tensor, op.operands)), tuple(map(_tensor, op.results)),
        {name: plain_value(value) for name, value in op.properties.items()})


def _verify(name: str, op: Operation) -> None:
    try:
        check_operation(name, plain_operation(op))
    except OperationFault as fault:
        raise VerifyException(str(fault)) from None


def _verify_constant(op: Operation) -> None:
    value, output = value_type(op.properties['value'].type), value_type(op.results[0])
    if value.shape != output.shape:
        raise VerifyException(f'value has shape {value.shape}, the result {output.shape}')
    if value.dtype.lstrip('s') != output.dtype.lstrip('s'):
        raise VerifyException(f'value holds {value.dtype}, the result {output.dtype}')


VERIFY: dict[str, Callable[[Operation], None]] = {
    'constant': _verify_constant, **{name: partial(_verify, name) for name in RULES}}
"""Op name without prefix -> check; each raises VerifyException with the reason."""
