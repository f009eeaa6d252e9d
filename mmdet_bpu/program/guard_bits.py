"""Guard bits of an addition: both sides are rescaled to a fraction of the result's LSB first."""
import math

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import largest_magnitude

# Each side of an addition stays within 2**30, so the sum and its rounding stay within int32.
SIDE_LIMIT = 2**30 - 1
MAX_GUARD_BITS = 8


def side_limit(dtype: str, multiplier: int, shift: int) -> int:
    """Upper bound of the magnitude of one side of an addition after rescaling, in guarded LSB."""
    product = largest_magnitude(dtype) * multiplier
    return (product >> shift) + 1 if shift > 0 else product << min(-shift, 64)


def choose_guard_bits(ratios: list[float], dtypes: list[str]) -> int:
    """Most guard bits, up to 8, with which both sides of an addition stay within int32.

    Args:
        ratios (list[float]): Scale of each side over the scale of the result.
        dtypes (list[str]): Element type of each side.

    Returns:
        int: Guard bits; the converter multiplies each ratio by ``2**guard_bits``.

    Raises:
        BpuError: if a side does not fit even without guard bits.
    """
    room = min(SIDE_LIMIT / (largest_magnitude(dtype) * ratio * (1 + 2**-14) + 1)
               for ratio, dtype in zip(ratios, dtypes))
    if room < 1:
        raise BpuError(f'the sides of an addition are {ratios} times coarser than its result, '
                       'which does not fit int32: enlarge the scale of the result')
    return min(MAX_GUARD_BITS, int(math.log2(room)))
