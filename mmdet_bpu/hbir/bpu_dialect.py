"""The ``bpu`` dialect: the integer form that is interpreted, compiled and simulated.

Its operations are defined in the project's ``docs/numerics.md``, their signatures in
:mod:`mmdet_bpu.program.operations`. Lists of integers are ``array<i64: ...>``. Every operation may
carry ``site``: where in the model it is.
Elements are integers only: ``!qnt.uniform`` types, or plain ``si8`` ... ``si32`` and ``i1``.
"""
from xdsl.ir import Dialect
from xdsl.irdl import IRDLOperation

from mmdet_bpu.hbir.bpu_shapes import VERIFY
from mmdet_bpu.hbir.dialect import OpSpec, op_class
from mmdet_bpu.program.operations import OPERATIONS

BPU_SPECS: dict[str, OpSpec] = OPERATIONS
"""Name without prefix -> signature."""

BPU_OPS: dict[str, type[IRDLOperation]] = {
    f'bpu.{name}': op_class('bpu', spec, by_storage=True, verify=VERIFY[name])
    for name, spec in BPU_SPECS.items()}
"""Full name -> operation class."""

Bpu = Dialect('bpu', list(BPU_OPS.values()), [])
