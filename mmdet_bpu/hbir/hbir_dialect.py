"""The ``hbir`` dialect: every operation of the vendor's published reference, for f32 graphs, and
what its tools insert at an input.

Lists are written ``[1, 1]`` and attributes as properties, ``<{...}>``, as the vendor prints them.
Attributes that have a default may be left out, as in the published texts.
"""
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Dialect, Operation
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir import camera_ops
from mmdet_bpu.hbir.dialect import OpSpec, op_class, parse_table
from mmdet_bpu.hbir.hbir_ops import (ELEMENT_CLASSES, EXTRA_ELEMENTS, REQUIRED_ATTRIBUTES, TABLE)


def _verify_constant(op: Operation) -> None:
    values = op.properties['values'].type
    output = op.results[0].type
    if not isinstance(values, TensorType) or values != output:
        raise VerifyException(f'values are of {values}, the result is of {output}')


HBIR_SPECS: dict[str, OpSpec] = {
    **parse_table(TABLE, ELEMENT_CLASSES, REQUIRED_ATTRIBUTES, EXTRA_ELEMENTS),
    **parse_table(camera_ops.TABLE, {}, camera_ops.REQUIRED_ATTRIBUTES)}
"""Name without prefix -> signature."""

_VERIFY = {'constant': _verify_constant, **camera_ops.VERIFY}

HBIR_OPS: dict[str, type[IRDLOperation]] = {
    f'hbir.{name}': op_class('hbir', spec, verify=_VERIFY.get(name))
    for name, spec in HBIR_SPECS.items()}
"""Full name -> operation class."""

Hbir = Dialect('hbir', list(HBIR_OPS.values()), [])
