"""The integer module as a plain list of instructions: what compiler and interpreter read.

Inputs and outputs keep their public names (``hbir.name``); every other value has the name it has
in the text, ``%`` and the number of the result. An output that is an input, a constant or another
output too is copied by a reshape to its own shape, so that each output is a value of its own.
"""
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import (NAME, attrs_of, constant_array, find_function, metadata_of,
                                    operations, site_of)
from mmdet_bpu.hbir.types import value_type

ELEMENT_BYTES = {'si8': 1, 'si16': 2, 'si32': 4, 'i1': 1}
"""Element name of the integer form -> bytes in memory (a mask takes a byte an element)."""


@dataclass(frozen=True)
class TensorType:
    """Static shape, element name and scale; the scale is None for indices, masks and values
    with one scale per channel."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass
class Value:
    """A tensor of the program; ``data`` is set for constants (read-only, in ``type``'s shape)."""

    name: str
    type: TensorType
    data: np.ndarray | None = None


@dataclass
class Instruction:
    """One operation, such as 'bpu.conv2d', on values by name; ``attrs`` are JSON-able."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    site: str = ''


@dataclass(frozen=True)
class TensorSpec:
    """Input or output of an executable."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None


@dataclass
class Program:
    """Values by name, names of inputs and outputs, instructions in order, metadata."""

    values: dict[str, Value]
    inputs: list[str]
    outputs: list[str]
    instructions: list[Instruction]
    metadata: dict = field(default_factory=dict)

    def spec(self, name: str) -> TensorSpec:
        """Description of an input or output."""
        kind = self.values[name].type
        return TensorSpec(name, kind.shape, kind.dtype, kind.scale)

    def kernel_attrs(self, instruction: Instruction) -> dict[str, Any]:
        """Attributes as the kernels take them: with ``out_dtypes``."""
        return {**instruction.attrs,
                'out_dtypes': [self.values[name].type.dtype for name in instruction.outputs]}


def program_from_module(module: ModuleOp) -> Program:
    """Plain program of a module of the ``bpu`` dialect.

    Raises:
        BpuError: Another dialect's operation or type, an unnamed input or output.
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
    return Program(values, inputs, outputs, instructions, metadata_of(module))


def _tensor_type(value: SSAValue) -> TensorType:
    shape, dtype, scale = value_type(value)
    if dtype not in ELEMENT_BYTES:
        raise BpuError(f'value of type {value.type}: the integer form has '
                       f'{", ".join(ELEMENT_BYTES)} elements only')
    return TensorType(shape, dtype, None if isinstance(scale, np.ndarray) else scale)


def _public_names(function: FuncOp, attribute: str, count: int) -> list[str]:
    entries = getattr(function, attribute)
    names = [entry.data.get(NAME) for entry in entries.data] if entries is not None else []
    if len(names) != count or None in names:
        kind = 'argument' if attribute == 'arg_attrs' else 'result'
        raise BpuError(f'every {kind} of @{function.sym_name.data} needs a {NAME}')
    return [name.data for name in names]
