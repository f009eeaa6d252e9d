"""From operation signatures to xDSL operations that verify themselves against them.

The table is read by :mod:`mmdet_bpu.program.signatures`, which explains its notation.
"""
from dataclasses import dataclass
from typing import Callable, Iterable

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Operation
from xdsl.irdl import (AttrConstraint, IRDLOperation, SameVariadicOperandSize, irdl_op_definition,
                       operand_def, opt_operand_def, opt_prop_def, prop_def, result_def,
                       traits_def, var_operand_def, var_result_def)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.attributes import check_kind
from mmdet_bpu.hbir.types import UniformQuantizedType, element_name, is_none
from mmdet_bpu.program.signatures import OpSpec, ValueSpec, parse_table

__all__ = ['OpSpec', 'ValueSpec', 'op_class', 'parse_table']

@dataclass(frozen=True)
class TensorConstraint(AttrConstraint):
    """A tensor of some element types and rank; ``none`` where the signature allows it.

    A quantized element is judged by what it stores (``by_storage``) or by what it expresses.
    """

    spec: ValueSpec
    by_storage: bool

    def verify(self, attr: Attribute, constraint_context) -> None:
        """Raise VerifyException unless ``attr`` is such a type."""
        spec = self.spec
        if is_none(attr) and spec.may_be_none:
            return
        wanted = f'a tensor of {" or ".join(spec.elements)}'
        if spec.rank is not None:
            wanted += f' with rank {spec.rank}'
        if not isinstance(attr, TensorType):
            raise VerifyException(f'expected {wanted}, found {attr}')
        element = attr.element_type
        if isinstance(element, UniformQuantizedType) and not self.by_storage:
            element = element.expressed
        if element_name(element) not in spec.elements or (
                spec.rank is not None and len(attr.get_shape()) != spec.rank):
            raise VerifyException(f'expected {wanted}, found {attr}')

    def mapping_type_vars(self, type_var_mapping) -> 'TensorConstraint':
        """Return itself: no type variables occur in it."""
        return self


@dataclass(frozen=True)
class KindConstraint(AttrConstraint):
    """An attribute of one of the kinds of the module docstring."""

    kind: str

    def verify(self, attr: Attribute, constraint_context) -> None:
        """Raise VerifyException unless ``attr`` is of the kind."""
        check_kind(self.kind, attr)

    def mapping_type_vars(self, type_var_mapping) -> 'KindConstraint':
        """Return itself: no type variables occur in it."""
        return self


def op_class(dialect: str, spec: OpSpec, by_storage: bool = False,
             verify: Callable[[Operation], None] | None = None) -> type[IRDLOperation]:
    """Make the xDSL class of an operation from its signature.

    Args:
        dialect: Name of the dialect, without the dot.
        spec: The signature. It stays readable as ``cls.spec``.
        by_storage: Judge quantized elements by what they store.
        verify: Further check of an operation whose signature holds; raises VerifyException.
    """
    members = {'name': f'{dialect}.{spec.name}', 'traits': traits_def(Pure()),
               '__doc__': f'Operation ``{dialect}.{spec.name}``.', '__module__': __name__}
    for value in spec.operands:
        define = (var_operand_def if value.variadic else
                  opt_operand_def if value.may_be_left_out else operand_def)
        members[_member(value.name)] = define(TensorConstraint(value, by_storage))
    for value in spec.results:
        define = var_result_def if value.variadic else result_def
        members[_member(value.name)] = define(TensorConstraint(value, by_storage))
    for name, (kind, required) in spec.attributes.items():
        define = prop_def if required else opt_prop_def
        members[_member(name, members)] = define(KindConstraint(kind), prop_name=name)
    if sum(value.may_be_left_out for value in spec.operands) > 1:
        members['irdl_options'] = (SameVariadicOperandSize(),)
    if verify is not None:
        members['verify_'] = lambda self: verify(self)
    class_name = spec.name.title().replace('_', '') + 'Op'
    cls = irdl_op_definition(type(class_name, (IRDLOperation,), members))
    cls.spec = spec
    return cls


def _member(name: str, taken: Iterable[str] = ()) -> str:
    """Python name of an operand, result or attribute, free of xDSL's own member names."""
    return f'{name}_' if hasattr(IRDLOperation, name) or name in taken else name
