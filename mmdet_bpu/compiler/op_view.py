"""One shape for the ops of both forms: the integer program and the fake-quantized HBIR module.

Legality and performance read :class:`OpView` only. An op of the integer dialect is seen as the
``hbir`` op it stands for; an op of an HBIR module is seen with the element types that its
``qnt.const_fake_quant`` neighbours plan.
"""
from dataclasses import dataclass, field
from typing import Any, Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from mmdet_bpu.hbir.builder import attrs_of, operations, site_of, value_type
from mmdet_bpu.hbir.hbir_dialect import HBIR_SPECS
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.program.dtypes import ELEMENT_BYTES as INTEGER_BYTES
from mmdet_bpu.program.kinds import carried_operands, stands_for

ELEMENT_BYTES = {**INTEGER_BYTES, 'si64': 8, 'f16': 2, 'f32': 4}
"""Of HBIR, which has more types than an integer program."""


@dataclass(frozen=True)
class Tensor:
    """Shape and planned element type (None: not planned, e.g. inside a fused group)."""
    shape: tuple[int, ...]
    dtype: str | None
    constant: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class OpView:
    """One op, as the limits speak of it.

    Attributes:
        op: 'hbir.conv2d'; 'bpu.table' and 'bpu.requantize' keep their names.
        site: Where in the model.
        operands: Operand name of the HBIR op -> tensor. Variadic operands are numbered.
        results: Result tensors.
        attrs: Attributes by the integer dialect's names.
        feeds_output: Whether a result is an output of the model.
    """
    op: str
    site: str
    operands: dict[str, Tensor]
    results: tuple[Tensor, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    feeds_output: bool = False


# A residual is an operand of the integer form only.
_EXTRA_OPERANDS = {'conv2d': ('residual', ), 'linear': ('residual', ), 'convtranspose': ('residual', )}
# Operands of the integer form that come in another order than in HBIR.
_INTEGER_OPERANDS = {'deform_conv2d': ('input', 'weight', 'bias', 'offset', 'mask')}
_STANDS_FOR = stands_for()
_ATTRIBUTE_NAMES = {'groupNum': 'groups', 'offsetGroupNum': 'offset_groups',
                    'multiplies': 'multiples', 'ceilMode': 'ceil_mode'}
_CARRIED = carried_operands()
# A chain of data movement longer than this is not followed to its quantizer.
_MOVES_IN_A_ROW = 64


def _named(op: str, tensors: list[Tensor], integer: bool = False) -> dict[str, Tensor]:
    name = op.split('.', 1)[1]
    if integer and name in _INTEGER_OPERANDS:
        return dict(zip(_INTEGER_OPERANDS[name], tensors))
    spec = HBIR_SPECS.get(name)
    names = ('input', ) if spec is None else tuple(
        operand.name for operand in spec.operands if not operand.variadic)
    names += _EXTRA_OPERANDS.get(name, ())
    if len(tensors) > len(names):
        names = tuple(f'inputs[{index}]' for index in range(len(tensors)))
    return dict(zip(names, tensors))


def views_of_program(program) -> Iterator[OpView]:
    """Views of a :class:`mmdet_bpu.program.program.Program`'s instructions, in order."""
    outputs = set(program.outputs)

    def tensor(name: str) -> Tensor:
        value = program.values[name]
        return Tensor(tuple(value.type.shape), value.type.dtype, value.data is not None)

    for instruction in program.instructions:
        op = _STANDS_FOR.get(instruction.op, instruction.op)
        operands = _named(op, [tensor(n) for n in instruction.inputs], integer=True)
        yield OpView(op, instruction.site, operands,
                     tuple(tensor(name) for name in instruction.outputs), instruction.attrs,
                     not outputs.isdisjoint(instruction.outputs))


def _planned_type(value) -> str | None:
    """Element type planned for an SSA value: by its quantizer, through data movement, or its own.

    None where neither tells: a float32 value inside a group that fuses.
    """
    for _ in range(_MOVES_IN_A_ROW):
        owner = value.owner
        if not isinstance(owner, Operation):
            break
        if owner.name == 'qnt.const_fake_quant':
            return f'si{attrs_of(owner)["bits"]}'
        if owner.name not in _CARRIED:
            break
        value = owner.operands[_CARRIED[owner.name]]
    element = value_type(value).dtype
    return None if element in ('f32', 'f64') else element


def _result_type(result) -> str | None:
    for use in result.uses:
        if use.operation.name == 'qnt.const_fake_quant':
            return f'si{attrs_of(use.operation)["bits"]}'
    element = value_type(result).dtype
    return None if element in ('f32', 'f64') else element


def _feeds_output(op) -> bool:
    users = [use.operation for result in op.results for use in result.uses]
    users += [use.operation for user in users if user.name == 'qnt.const_fake_quant'
              for result in user.results for use in result.uses]
    return any(user.name == 'func.return' for user in users)


def views_of_module(module: ModuleOp) -> Iterator[OpView]:
    """Views of an xDSL module's ops: ``hbir`` ops without constants, or the integer program's."""
    ops = list(operations(module))
    if any(op.name.startswith('bpu.') for op in ops):
        yield from views_of_program(program_from_module(module))
        return
    for op in ops:
        if not op.name.startswith('hbir.') or op.name == 'hbir.constant':
            continue
        operands = [Tensor(value_type(operand).shape, _planned_type(operand))
                    for operand in op.operands]
        results = tuple(Tensor(value_type(result).shape, _result_type(result))
                        for result in op.results)
        attrs = {_ATTRIBUTE_NAMES.get(name, name): value
                 for name, value in attrs_of(op).items()}
        yield OpView(op.name, site_of(op), _named(op.name, operands), results, attrs,
                     _feeds_output(op))
