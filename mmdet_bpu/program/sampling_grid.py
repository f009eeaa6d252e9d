"""Fixed-point positions of ``grid_sample``: from a grid's integers to 2**-fraction_bits px."""
import math
from dataclasses import dataclass

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.numerics import quantize_multiplier

# 1/256 px: with it, 128 * 2**(2 * 8) = 2**23 keeps the weighted sum within the float32 carrier.
FRACTION_BITS = 8
# 128 * 2**(2 * 11) and its rounding term are the largest that fit an int32 accumulator.
MAX_FRACTION_BITS = 11
POSITION_LIMIT = 2**30 - 1


@dataclass(frozen=True)
class AxisSampling:
    """How one grid coordinate becomes a fixed-point position.

    Attributes:
        multiplier (int): Of ``p = round_half_even(g * multiplier / 2**shift) + offset``.
        shift (int): See multiplier.
        offset (int): Position of the grid's 0, in 2**-fraction_bits px.
        max_error (float): Largest distance to the real position inside the image, in px.
    """

    multiplier: int
    shift: int
    offset: int
    max_error: float


def axis_sampling(size: int, grid_scale: float, fraction_bits: int = FRACTION_BITS
                  ) -> AxisSampling:
    """Fixed-point form of ``x = ((g * grid_scale + 1) * size - 1) / 2`` (align_corners=False).

    Args:
        size (int): Extent of the image along the axis, in px.
        grid_scale (float): Scale of the int16 grid.
        fraction_bits (int): Fractional bits of a position, 1 to 11.

    Raises:
        BpuError: if the position does not fit 30 bits or fraction_bits is out of range.
    """
    check_fraction_bits(fraction_bits)
    if size << fraction_bits > POSITION_LIMIT // 4:
        raise BpuError(f'bpu.grid_sample: {size} px with {fraction_bits} fraction bits do not '
                       'fit 30 bits: use fewer fraction bits')
    real = float(grid_scale) * size / 2 * 2**fraction_bits
    multiplier, shift = quantize_multiplier(real)
    relative = abs(math.ldexp(multiplier, -shift) / real - 1) if real else 0.0
    # Inside the image |g * grid_scale| * size / 2 <= size / 2 + 1/2.
    max_error = relative * (size + 1) / 2 + 2.0**-(fraction_bits + 1)
    return AxisSampling(multiplier, shift, (size - 1) << fraction_bits - 1, max_error)


def check_fraction_bits(fraction_bits: int) -> None:
    """Raise :class:`BpuError` unless positions with so many fraction bits can be computed."""
    if not 1 <= fraction_bits <= MAX_FRACTION_BITS:
        raise BpuError(f'bpu.grid_sample: fraction_bits must be in [1, {MAX_FRACTION_BITS}], '
                       f'found {fraction_bits}')
