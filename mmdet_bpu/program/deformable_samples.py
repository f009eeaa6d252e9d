"""Fixed-point facts of deformable convolution: positions, and samples before their product."""
from mmdet_bpu.program.dtypes import largest_magnitude
from mmdet_bpu.program.sampling_grid import FRACTION_BITS

OFFSET_SCALE = 2.0**-FRACTION_BITS
"""Scale of int16 offsets, in px, with which positions need no rounding: they reach 128 px."""

MASK_BITS = 7
"""A mask's integer counts in units of 2**-7, so samples times their mask stay as large."""

# The sum over four si16 pixels, 2**15 * 2**(2 * 8), is the largest that int32 holds.
FRACTION_RANGE = range(1, 9)


def sample_range(fraction_bits: int) -> range:
    """Bits that a sample may keep below the LSB of its image; with the last ones it is exact."""
    return range(2 * fraction_bits + 1)


def finest_sample_bits(result: str) -> int:
    """Most of these bits that a result of a type asks for, where the accumulator has room.

    With 7, a sample of si8 pixels has 15 bits, and few si8 results differ from those of exact
    samples; the 256 times finer LSB of other results shows what is cut off there.
    """
    return 7 if result == 'si8' else sample_range(FRACTION_BITS)[-1]


def largest_sample(dtype: str, sample_bits: int) -> int:
    """Largest magnitude of a sample: that of a pixel, since weights and mask are at most 1."""
    return largest_magnitude(dtype) << sample_bits


def sample_shift(fraction_bits: int, sample_bits: int, masked: bool) -> int:
    """Bits by which the weighted sum of four pixels, times its mask, is shifted to a sample."""
    return 2 * fraction_bits - sample_bits + (MASK_BITS if masked else 0)
