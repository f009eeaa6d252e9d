"""Which integer unit of this processor multiplies, decided once from what numba compiles for.

numba's cache keeps machine code apart by processor and features, so the choice follows from these
alone: another one is simulated by its variables NUMBA_CPU_NAME and NUMBA_CPU_FEATURES.
"""
from typing import Optional

from numba.core.registry import cpu_target

from mmdet_bpu.kernels.fast.tiles import UNITS


def processor_features() -> set[str]:
    """Features that numba compiles for, in LLVM's names."""
    features = cpu_target.target_context.codegen().magic_tuple()[-1]
    return {each[1:] for each in features.split(',') if each.startswith('+')}


def choose(features: set[str], depth: Optional[int] = None) -> Optional[str]:
    """The first unit of the table whose features are there; None if there is none.

    Args:
        features (set[str]): What the processor has.
        depth (int, optional): Only units of as many values per 32 bits.
    """
    return next((name for name, unit in UNITS.items() if features.issuperset(unit.features)
                 and depth in (None, unit.depth)), None)


UNIT = choose(processor_features(), 2)
"""For values of 16 bits, and of 8 where no unit takes these."""
UNIT_INT8 = choose(processor_features())
"""For values of 8 bits."""
