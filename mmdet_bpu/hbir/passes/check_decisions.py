"""What the passes found in the module is what the quantized graph decided.

Training rounds where the quantized graph says; the passes read the same module as any other reader
would, by its patterns. Where a module comes with the decisions that it was written from, both must
name the same forms: a tensor that is trained as the end of a table, and would be computed as a
product, is an error at its site. A module that was read from a file comes without.

    decided: %y is a product, %a = hbir.conv2d, with a residual %s and a relu
    found:   %a = hbir.conv2d, hbir.add(%a, %s), hbir.relu, qnt.const_fake_quant    ->   the same
"""
import math
from typing import Optional

from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT, Conversion, Decision, Form
from mmdet_bpu.hbir.passes.find_tables import SCALED

LAYOUT = ('hbir.reshape', 'hbir.transpose')
SCALE_TOLERANCE = 1e-6  # scales are float32; their products are not rounded


def _made_by(value: SSAValue, *names: str) -> Optional[Operation]:
    op = value.owner
    return op if isinstance(op, Operation) and op.name in names else None


def _origin(conversion: Conversion, value: SSAValue) -> SSAValue:
    """What ``value`` is a view of: the same integers in another layout, scaled or cut at 0."""
    while value in conversion.integers:
        op = _made_by(value, *LAYOUT, *SCALED)
        if op is None:
            break
        value = op.operands[0]
    return value


def _found(conversion: Conversion, value: SSAValue) -> tuple:
    """Form, source, residual and relu of the integers of ``value``."""
    rounding = _made_by(value, FAKE_QUANT)
    key = value.owner if rounding is None else rounding
    if key in conversion.products:
        product = conversion.products[key]
        return Form.PRODUCT, product.op.results[0], product.residual, product.relu
    if key in conversion.tables:
        return Form.TABLE, conversion.tables[key].root, None, False
    if rounding is None:
        carried = value in conversion.integers
        return (Form.CARRIED if carried else Form.FLOAT), value, None, False
    relu = _made_by(rounding.operands[0], 'hbir.relu')
    activated = relu is not None and relu.operands[0].owner in conversion.activated
    return Form.ROUNDED, rounding.operands[0], None, activated


def _same(conversion: Conversion, left: Optional[SSAValue], right: Optional[SSAValue]) -> bool:
    if left is None or right is None:
        return left is right
    return _origin(conversion, left) is _origin(conversion, right)


def _agrees(conversion: Conversion, decision: Decision) -> bool:
    form, source, residual, relu = _found(conversion, decision.value)
    if form is Form.ROUNDED and decision.form is Form.TABLE:
        # The square that a power is written as: one operation on the root alone.
        return all(_same(conversion, v, decision.source) for v in source.owner.operands)
    if (form, relu) != (decision.form, decision.relu) \
            or not _same(conversion, residual, decision.residual):
        return False
    if form is Form.PRODUCT:
        return source is decision.source
    if form is Form.TABLE:
        return _same(conversion, source, decision.source)
    if form is Form.CARRIED:
        own, found = (conversion.integers[v] for v in (decision.source, decision.value))
        return own.dtype == found.dtype and math.isclose(
            own.scale * decision.factor, found.scale, rel_tol=SCALE_TOLERANCE)
    return True


def check_decisions(conversion: Conversion) -> None:
    """Compare every decision with what was found; nothing is changed.

    Raises:
        BpuError: They differ; the message names the site and both forms.
    """
    for decision in conversion.decisions:
        if not _agrees(conversion, decision):
            form = _found(conversion, decision.value)[0]
            found = 'another one of that form' if form is decision.form else form.value
            raise BpuError(f'{decision.site}: trained as {decision.form.value}, but its HBIR reads '
                           f'as {found}; please report the model, this is a fault of mmdet_bpu')
