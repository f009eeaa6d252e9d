"""Both sides of an add, sub or mul get one storage type: the wider one.

    add(%x : si8, %y : si16)   ->   add(requantize(%x) : si16, %y : si16), same scale, exact
"""
from mmdet_bpu.hbir.builder import site_of
from mmdet_bpu.hbir.passes.conversion import Conversion
from mmdet_bpu.program.dtypes import ELEMENT_BYTES

ELEMENTWISE = ('hbir.add', 'hbir.sub', 'hbir.mul')


def agree_types(conversion: Conversion) -> None:
    """Fill ``promotions`` and note each one."""
    for op in conversion.operations():
        if op.name not in ELEMENTWISE or op in conversion.absorbed:
            continue
        if not all(conversion.is_integer(v) for v in op.operands):
            continue
        types = [conversion.integer(v, op).dtype for v in op.operands]
        if types[0] == types[1]:
            continue
        narrow = 0 if ELEMENT_BYTES[types[0]] < ELEMENT_BYTES[types[1]] else 1
        wide = types[1 - narrow]
        conversion.promotions[op, narrow] = wide
        conversion.notes.append(
            dict(site=site_of(op), rule='agree_types',
                 text=f'{op.name.split(".")[1]} of {types[0]} and {types[1]}: operand {narrow} '
                 f'widened to {wide}'))
