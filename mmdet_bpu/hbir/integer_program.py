"""From a module of the ``bpu`` dialect to the plain :class:`Program`.

An output that is an input, a constant or another output too is copied by a reshape to its own
shape, so that each output is a value of its own.
"""
import itertools

import numpy as np
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import (NAME, attrs_of, constant_array, find_function, metadata_of,
                                    operations, site_of)
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.dtypes import ELEMENT_BYTES
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value
from mmdet_bpu.program.verify import verify_program


def program_from_module(module: ModuleOp) -> Program:
    """Plain program of a module of the ``bpu`` dialect.

    Raises:
        BpuError: Another dialect's operation or type, an unnamed input or output, or more memory or
            work than the budget.
    """
    function = find_function(module)
    arguments = list(function.body.block.args)
    results = list(function.body.block.last_op.operands)
    inputs = _public_names(function, 'arg_attrs', len(arguments))
    outputs = _public_names(function, 'res_attrs', len(results))
    repeated = [name for name in inputs + outputs if (inputs + outputs).count(name) > 1]
    if repeated:
        raise BpuError(f'{repeated[0]!r} names more than one input or output')

    names: dict[SSAValue, str] = dict(zip(arguments, inputs))
    values = {name: Value(name, _tensor_type(value)) for value, name in names.items()}
    instructions, copies = [], []
    for value, name in zip(results, outputs):
        if value in names or constant_array(value) is not None:
            copies.append((value, name))
        else:
            names[value] = name
    number = itertools.count()
    for op in operations(module):
        if not op.name.startswith('bpu.'):
            raise BpuError(f'{op.name} at {site_of(op)!r} is not an operation of the integer form: '
                           'convert the module first')
        for result in op.results:
            name = names.setdefault(result, f'%{next(number)}')
            values[name] = Value(name, _tensor_type(result), constant_array(op))
        if op.name != 'bpu.constant':
            instructions.append(Instruction(
                op.name, [names[value] for value in op.operands],
                [names[value] for value in op.results], attrs_of(op), site_of(op)))
    for value, name in copies:
        kind = _tensor_type(value)
        values[name] = Value(name, kind)
        instructions.append(Instruction('bpu.reshape', [names[value]], [name],
                                        {'shape': list(kind.shape)}, f'output {name}'))
    program = Program(values, inputs, outputs, instructions, metadata_of(module))
    constants = [value for value in values.values() if value.data is not None]
    verify_program(program, [value.name for value in constants],
                   sum(value.type.nbytes for value in constants))
    return program


def _tensor_type(value: SSAValue) -> TensorType:
    shape, dtype, scale = value_type(value)
    if dtype not in ELEMENT_BYTES:
        raise BpuError(f'value of type {value.type}: the integer form has '
                       f'{", ".join(ELEMENT_BYTES)} elements only')
    return TensorType(shape, dtype, None if isinstance(scale, np.ndarray) else scale)


def _public_names(function: FuncOp, attribute: str, count: int) -> list[str]:
    entries = getattr(function, attribute)
    names = [entry.data.get(NAME) if isinstance(entry, DictionaryAttr) else None
             for entry in entries.data] if entries is not None else []
    if len(names) != count or not all(isinstance(name, StringAttr) for name in names):
        kind = 'argument' if attribute == 'arg_attrs' else 'result'
        raise BpuError(f'every {kind} of @{function.sym_name.data} needs a {NAME}')
    return [name.data for name in names]
