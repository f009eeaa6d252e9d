"""Write the integer module: one ``bpu`` operation per rounding, data movement as it is.

    %y = qnt.const_fake_quant(hbir.mul(%a, %b))   ->   %y = bpu.mul(%a, %b) {multiplier, shift}
    %z = hbir.reshape(%y)                         ->   %z = bpu.reshape(%y)
"""
from xdsl.ir import BlockArgument, Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, site_of
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT, Conversion, IntType
from mmdet_bpu.hbir.passes.emit import Emitter
from mmdet_bpu.hbir.passes.emit_arithmetic import ROUNDED, product, table
from mmdet_bpu.hbir.passes.emit_movement import MOVED
from mmdet_bpu.hbir.reference_feature_maps import resize_attributes
from mmdet_bpu.program.numerics import quantize_multiplier


def emit_module(conversion: Conversion) -> None:
    """Fill ``result`` and ``emitted``.

    Raises:
        BpuError: An operation that is neither rounded nor data movement; the message names its
            site.
    """
    e = Emitter(conversion)
    for op in conversion.operations():
        if op.name == FAKE_QUANT:
            if op.results[0] not in conversion.constants:
                e.ints[op.results[0]] = _rounding(e, op)
        elif op in conversion.products:
            e.ints[op.results[0]] = product(e, conversion.products[op])
        elif op.name in MOVED and _moves_integers(e, op):
            MOVED[op.name](e, op)
        elif op.name == 'hbir.mul' and op.results[0] in conversion.integers:
            e.ints[op.results[0]] = e.ints[op.operands[0]]  # another scale, the same integers
        elif not _handled_elsewhere(conversion, op):
            raise BpuError(f'{site_of(op)}: {op.name} is neither rounded nor data movement; '
                           'it cannot run on integers')
    e.finish(conversion.metadata)
    conversion.emitted = e.ints


def _moves_integers(e: Emitter, op: Operation) -> bool:
    conversion = e.conversion
    if op in conversion.absorbed:
        return False
    if op.name == 'hbir.resize2d' and resize_attributes(attrs_of(op)) != 'nearest':
        return False  # it rounds
    return any(v in known for v in op.operands for known in (e.ints, conversion.constants))


def _handled_elsewhere(conversion: Conversion, op: Operation) -> bool:
    return op.name == 'hbir.constant' or op in conversion.absorbed or op in conversion.activated \
        or any(r in conversion.rounded for r in op.results)


def _rounding(e: Emitter, op: Operation) -> SSAValue:
    """The integers of a fake quantizer's result."""
    conversion, source = e.conversion, op.operands[0]
    out = conversion.integers[op.results[0]]
    if isinstance(source, BlockArgument):
        return e.b.inputs[e.arguments.index(source)]
    if op in conversion.products:
        return product(e, conversion.products[op])
    if op in conversion.tables:
        return table(e, op, conversion.tables[op], out)
    if source in e.ints:
        return _rescaled(e, source, op, out)
    owner = source.owner
    relu = owner.name == 'hbir.relu' and owner.operands[0].owner in conversion.activated
    rounded = owner.operands[0].owner if relu else owner
    if rounded.name not in ROUNDED:
        raise BpuError(f'{site_of(owner)}: {owner.name} of tensors has no integer form')
    return ROUNDED[rounded.name](e, rounded, out, **(dict(relu=True) if relu else {}))


def _rescaled(e: Emitter, value: SSAValue, op: Operation, out: IntType) -> SSAValue:
    """Integers rounded a second time, to another scale."""
    source = e.conversion.moved.get(value) or e.type_of(value, op)
    multiplier, shift = quantize_multiplier(source.scale / out.scale)
    return e.b.op('bpu.requantize', [e.ints[value]], dict(multiplier=[multiplier], shift=[shift]),
                  e.result_type(value, out), site=site_of(op))
