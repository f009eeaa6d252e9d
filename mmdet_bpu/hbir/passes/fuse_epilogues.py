"""Products, and sums of integers, with what follows them before their rounding.

    %a = hbir.conv2d(%x, %w, %b)
    %s = hbir.add(%a, %residual)       ->   one product: residual and relu work on the
    %r = hbir.relu(%s)                      int32 accumulator, one rounding at the end
    %y = qnt.const_fake_quant(%r)

    %s = hbir.add(%a, %b), %r = hbir.relu(%s)    ->   one addition that cuts at 0

A product without a fake quantizer keeps its accumulator: ``si32``.
"""
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.passes.conversion import (PRODUCTS, RESIDUAL_PRODUCTS, Conversion,
                                              Product)


def _owner(value: SSAValue, name: str):
    op = value.owner
    return op if isinstance(op, Operation) and op.name == name else None


def _match(conversion: Conversion, fake_quant: Operation) -> None:
    value, relu, chain = fake_quant.operands[0], False, []
    op = _owner(value, 'hbir.relu')
    if op is not None and op.operands[0] not in conversion.integers:
        relu, value = True, op.operands[0]
        chain.append(op)
    residual = None
    add = _owner(value, 'hbir.add')
    if add is not None:
        floats = [v for v in add.operands if not conversion.is_integer(v)]
        if relu and not floats:
            conversion.activated.add(add)
            return
        if len(floats) != 1 or getattr(floats[0].owner, 'name', '') not in RESIDUAL_PRODUCTS:
            return
        residual = next(v for v in add.operands if v is not floats[0])
        value = floats[0]
        chain.append(add)
    product = value.owner
    if not isinstance(product, Operation) or product.name not in PRODUCTS:
        return
    conversion.products[fake_quant] = Product(product, residual, relu,
                                              conversion.integers[fake_quant.results[0]])
    conversion.absorbed.update([*chain, product])


def fuse_epilogues(conversion: Conversion) -> None:
    """Fill ``products`` and ``activated``."""
    for fake_quant in list(conversion.rounded.values()):
        _match(conversion, fake_quant)
    for op in conversion.operations():
        if op.name in PRODUCTS and op not in conversion.absorbed:
            conversion.products[op] = Product(op)
