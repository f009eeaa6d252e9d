"""Operations of the integer module whose results nothing reads go away, last ones first.

    %a = bpu.reshape(%x)        (no reader)   ->   nothing
"""
from mmdet_bpu.hbir.builder import operations
from mmdet_bpu.hbir.passes.conversion import Conversion


def drop_unused(conversion: Conversion) -> None:
    """Rewrite ``result`` in place; what goes away leaves ``emitted`` too."""
    dropped = set()
    for op in reversed(list(operations(conversion.result))):
        if not any(result.uses for result in op.results):
            dropped.update(op.results)
            op.detach()
            op.erase()
    conversion.emitted = {value: ssa for value, ssa in conversion.emitted.items()
                          if ssa not in dropped}
