"""Build modules op by op, and read the operations back.

Example, in the fake-quantized form::

    b = OpBuilder([('image', tensor_type((1, 32, 32, 3), 'f32'))])
    x = b.fake_quant(b.inputs[0], bits=8, scale=0.02)
    w = b.constant(weight)                                   # (O, KH, KW, C) float32
    w = b.fake_quant(w, bits=8, scale=weight_scales, axis=0)
    y = b.op('hbir.conv2d', [x, w, None], dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1],
             groupNum=1), tensor_type((1, 32, 32, 8), 'f32'), site='stem/conv2d.0')
    module = b.finish([('features', y)])

In the integer form ``OpBuilder(inputs, dialect='bpu')``, with types such as
``tensor_type((1, 32, 32, 8), 'si8', scale=0.05)`` and ``b.constant(int8_array, scale=0.01)``.
Several results: give a list of types, get a list of values. Read back::

    for op in operations(module):
        op.name, attrs_of(op), [value_type(value) for value in op.operands], site_of(op)
    constant_array(w)                                        # numpy view of a constant's data
"""
import json
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import (ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, NameLoc,
                                   NoneAttr, StringAttr, TensorType, i64)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.attributes import make_attribute, plain_value
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS
from mmdet_bpu.hbir.hbir_dialect import HBIR_OPS
from mmdet_bpu.hbir.qnt_dialect import ConstFakeQuantOp, fake_quant_properties
from mmdet_bpu.hbir.text import site_of, verify_operation
from mmdet_bpu.hbir.types import array_element, dense_attribute, tensor_type, value_type
from mmdet_bpu.program.json_text import read_json

__all__ = ['OpBuilder', 'attrs_of', 'constant_array', 'find_function', 'metadata_of',
           'operations', 'site_of', 'value_type']

OPS = {**HBIR_OPS, **BPU_OPS, ConstFakeQuantOp.name: ConstFakeQuantOp}
"""Every operation that the builder can make, by its full name."""

NAME, ID, METADATA = 'hbir.name', 'hbir.id', 'bpu.metadata'
"""Attributes of an argument or result: its public name, and in the ``hbir`` dialect its number, as
the vendor prints it: 1, 2, ... of arguments, -1, -2, ... of results; of a module: metadata as JSON
text."""


class OpBuilder:
    """Appends operations to one function, ``@forward``.

    Args:
        inputs: Name and type of each argument, in order.
        dialect: 'hbir' or 'bpu': which ``constant`` :meth:`constant` makes.
    """

    def __init__(self, inputs: Sequence[tuple[str, TensorType]], dialect: str = 'hbir'):
        self.dialect = dialect
        self._names = [name for name, _ in inputs]
        self._block = Block(arg_types=[type_ for _, type_ in inputs])
        self.inputs: list[SSAValue] = list(self._block.args)
        for value, name in zip(self.inputs, self._names):
            if SSAValue.is_valid_name(name):
                value.name_hint = name

    def op(self, name: str, operands: Sequence[SSAValue | None], attrs: Mapping[str, Any],
           result_types: TensorType | Sequence[TensorType],
           site: str = '') -> SSAValue | list[SSAValue]:
        """Append an operation and verify it.

        Args:
            name: Full name, such as 'hbir.conv2d'.
            operands: Its operands; trailing ones that may be left out can be None.
            attrs: Plain values by attribute name; None values are left out.
            result_types: One type, or a list of types.
            site: Where in the model it comes from. A ``bpu`` operation keeps it as the property
                ``site``, others as their location.

        Returns:
            The result, or the list of results where ``result_types`` is a list.

        Raises:
            BpuError: Unknown operation or attribute, or the verifier's reason, with the site.
        """
        cls = OPS.get(name)
        if cls is None:
            raise BpuError(f'unknown operation {name!r} at {site!r}')
        kinds = {key: kind for key, (kind, _) in cls.spec.attributes.items()}
        attrs = {key: value for key, value in attrs.items() if value is not None}
        if site and 'site' in kinds:
            attrs['site'] = site
        unknown = sorted(attrs.keys() - kinds.keys())
        if unknown:
            raise BpuError(f'{name} at {site!r} has no attribute {unknown[0]!r}, '
                           f'only {sorted(kinds)}')
        try:
            properties = {key: make_attribute(kinds[key], attrs[key], name.startswith('bpu.'))
                          for key in sorted(attrs)}
        except BpuError as error:
            raise BpuError(f'{name} at {site!r}: {error}') from None
        return self._append(cls, operands, properties, result_types, site)

    def constant(self, array: np.ndarray, scale: float | np.ndarray | None = None,
                 axis: int | None = None, site: str = '') -> SSAValue:
        """Append a constant of the dialect; its type follows the array.

        Args:
            array: float32 (``hbir``), int8, int16, int32 or bool data; 64-bit integers only in
                ``hbir``. Its bytes are stored as they are.
            scale: Makes the type quantized: one scale, or one per slice along ``axis``.
            axis: Axis of the scales.
            site: Where in the model it comes from.
        """
        integer = self.dialect == 'bpu'
        array = np.asarray(array)
        data = dense_attribute(array, signless=integer)
        result = tensor_type(array.shape, array_element(array.dtype), scale, axis)
        if integer:
            return self.op('bpu.constant', [], dict(value=data), result, site)
        return self.op('hbir.constant', [], dict(values=data), result, site)

    def fake_quant(self, value: SSAValue, bits: int, scale: float | np.ndarray,
                   axis: int | None = None, narrow: bool = False, site: str = '') -> SSAValue:
        """Append a ``qnt.const_fake_quant``; see :func:`fake_quant_properties`."""
        properties = fake_quant_properties(bits, scale, axis, narrow)
        return self._append(ConstFakeQuantOp, [value], properties, value.type, site)

    def adopt(self, op: Operation) -> None:
        """Append an operation of another module, detached from it, as it is."""
        self._block.add_op(op)

    def finish(self, outputs: Sequence[tuple[str, SSAValue]],
               metadata: Mapping[str, Any] | None = None) -> ModuleOp:
        """Return the verified module that returns ``outputs`` under their names.

        Args:
            outputs: Public name and value of each result, in order.
            metadata: JSON-able description kept as the module's ``bpu.metadata``.
        """
        names = self._names + [name for name, _ in outputs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BpuError(f'{repeated[0]!r} names more than one input or output')
        self._block.add_op(ReturnOp(*[value for _, value in outputs]))
        function = FuncOp(
            'forward', ([value.type for value in self.inputs],
                        [value.type for _, value in outputs]), Region(self._block),
            arg_attrs=self._names_attribute(self._names, 1),
            res_attrs=self._names_attribute([name for name, _ in outputs], -1))
        attributes = {}
        if metadata is not None:
            attributes[METADATA] = StringAttr(json.dumps(metadata, sort_keys=True))
        module = ModuleOp([function], attributes)
        for op in (module, function, self._block.last_op):
            verify_operation(op)  # each of the others was verified when it came
        return module

    def _names_attribute(self, names: Sequence[str], step: int) -> ArrayAttr:
        numbered = self.dialect == 'hbir'
        return ArrayAttr([DictionaryAttr({
            **({ID: IntegerAttr(step * place, i64)} if numbered else {}), NAME: StringAttr(name)})
            for place, name in enumerate(names, 1)])

    def _append(self, cls, operands, properties, result_types, site):
        single = isinstance(result_types, TensorType)
        given = [value for value in operands if value is not None]
        if None in operands[:len(given)]:
            raise BpuError(f'{cls.name} at {site!r}: only trailing operands can be left out')
        op = cls.create(operands=given, properties=properties,
                        result_types=[result_types] if single else list(result_types))
        if site and 'site' not in properties:
            op.location = NameLoc(StringAttr(site), NoneAttr())
        try:
            op.verify()
        except VerifyException as error:
            raise BpuError(f'{cls.name} at {site!r}: {str(error).strip()}') from None
        self._block.add_op(op)
        return op.results[0] if single else list(op.results)


def find_function(module: ModuleOp) -> FuncOp:
    """The one function of a module; raises BpuError unless there is exactly one."""
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    if len(functions) != 1:
        raise BpuError(f'expected a module with one function, found {len(functions)}')
    return functions[0]


def operations(module: ModuleOp) -> Iterator[Operation]:
    """Operations of the module's function in order, without its return."""
    for op in find_function(module).body.block.ops:
        if not isinstance(op, ReturnOp):
            yield op


def attrs_of(op: Operation) -> dict[str, Any]:
    """Attributes of an operation as plain values, without ``site`` (see :func:`site_of`)."""
    return {name: plain_value(value) for name, value in op.properties.items() if name != 'site'}


def constant_array(value: SSAValue | Operation) -> np.ndarray | None:
    """Read-only data of a constant, or None if the value is not made by a constant."""
    op = value.owner if isinstance(value, SSAValue) else value
    if not isinstance(op, Operation) or op.name not in ('hbir.constant', 'bpu.constant'):
        return None
    return plain_value(op.properties['value' if op.name == 'bpu.constant' else 'values'])


def metadata_of(module: ModuleOp) -> dict:
    """The module's metadata; empty where it has none.

    Raises:
        BpuError: They are no JSON table.
    """
    text = module.attributes.get(METADATA)
    if text is None:
        return {}
    try:
        metadata = read_json(text.data) if isinstance(text, StringAttr) else None
    except ValueError as error:
        raise BpuError(f'{METADATA} of the module cannot be read ({error})') from None
    if not isinstance(metadata, dict):
        raise BpuError(f'{METADATA} of the module: expected the text of a JSON table, found '
                       f'{str(text)[:80]}')
    return metadata
