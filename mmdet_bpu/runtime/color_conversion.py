"""Between RGB and YUV in integers: the one conversion of training, program, host and document.

A conversion is a matrix of fixed-point numbers, made of the rationals of the standards and of
nothing else:

    value[c] = clamp((sum_k matrix[c][k] * max(byte[k] - centre, low[k]) + offset[c]) >> shift)

to 0 to 255, where ``offset`` holds the half that makes the shift round to the nearest. The products
and their sum fit int32 for every byte.

BT.601 and BT.709 give the weights of red and blue in the luma (ITU-R BT.601-7, 2.5.1; ITU-R
BT.709-6, 3.2); green has the rest. In full range luma and chroma have 256 levels, chroma centred on
128 (JFIF 1.02); in video range luma has the levels 16 to 235 and chroma 16 to 240 (BT.601-7,
2.5.3). Luma below 16 is black in video range, as the decoders in use take it (OpenCV, libyuv).
"""
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple, Tuple

import numpy as np

RANGES = ('full', 'video')
LUMA_WEIGHTS = {
    'bt601': (Fraction(299, 1000), Fraction(114, 1000)),
    'bt709': (Fraction(2126, 10000), Fraction(722, 10000)),
}
"""Matrix -> weights of red and blue."""
MATRICES = tuple(LUMA_WEIGHTS)
CENTRE = 128
SHIFT = 20
"""Bits below the point: coefficients are off by at most 2**-21, results by at most 3 * 255 times
that before they are rounded."""
VIDEO_BLACK, VIDEO_LUMA, VIDEO_CHROMA = 16, 219, 224
"""Lowest level of luma, and how many levels luma and chroma span in video range."""


class Conversion(NamedTuple):
    """See the module.

    Attributes:
        matrix (tuple[tuple[int, ...], ...]): One row per result.
        offset (tuple[int, ...]): One per result, the half included.
        low (tuple[int, ...]): Least value of each operand, after the centre is taken off.
        centre (int): What is taken off every byte.
        shift (int): Bits below the point.
    """
    matrix: Tuple[Tuple[int, ...], ...]
    offset: Tuple[int, ...]
    low: Tuple[int, ...]
    centre: int
    shift: int

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Convert a picture.

        Args:
            picture (np.ndarray): (..., operands) uint8.

        Returns:
            np.ndarray: (..., results) uint8.
        """
        bytes_ = np.arange(256, dtype=np.int32) - self.centre
        result = np.empty((*picture.shape[:-1], len(self.matrix)), np.uint8)
        for index, (row, offset) in enumerate(zip(self.matrix, self.offset)):
            total = np.full(picture.shape[:-1], offset, np.int32)
            for operand, factor in enumerate(row):
                if factor:
                    products = np.int32(factor) * np.maximum(bytes_, self.low[operand])
                    total += products[picture[..., operand]]
            result[..., index] = np.clip(total >> self.shift, 0, 255)
        return result


@lru_cache(maxsize=None)
def rgb_of_yuv(levels: str, matrix: str) -> Conversion:
    """The conversion of bytes Y, U, V to R, G, B.

    Args:
        levels (str): One of :data:`RANGES`.
        matrix (str): One of :data:`MATRICES`.
    """
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    luma, chroma, black = _spans(levels)
    u, v = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    rows = ((luma, 0, v), (luma, -u * blue / green, -v * red / green), (luma, u, 0))
    offset = luma * (CENTRE - black)
    return _conversion(rows, (offset, ) * 3, (black - CENTRE, -CENTRE, -CENTRE), CENTRE)


@lru_cache(maxsize=None)
def yuv_of_rgb(levels: str, matrix: str) -> Conversion:
    """The conversion of bytes R, G, B to Y, U, V; arguments as of :func:`rgb_of_yuv`."""
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    luma, chroma, black = _spans(levels)
    u, v = 1 / (2 * (1 - blue) * chroma), 1 / (2 * (1 - red) * chroma)
    rows = ((red / luma, green / luma, blue / luma),
            (-red * u, -green * u, (1 - blue) * u),
            ((1 - red) * v, -green * v, -blue * v))
    return _conversion(rows, (black, CENTRE, CENTRE), (0, 0, 0), 0)


@lru_cache(maxsize=None)
def gray_of_luma(levels: str) -> Conversion:
    """The conversion of bytes Y to the gray values of a network of one channel."""
    luma, _, black = _spans(levels)
    return _conversion(((luma, ), ), (luma * (CENTRE - black), ), (black - CENTRE, ), CENTRE)


@lru_cache(maxsize=None)
def luma_of_gray(levels: str) -> Conversion:
    """The conversion of gray values to bytes Y."""
    luma, _, black = _spans(levels)
    return _conversion(((1 / luma, ), ), (black, ), (0, ), 0)


@lru_cache(maxsize=None)
def unchanged(channels: int) -> Conversion:
    """The conversion that leaves bytes as they are, for a network that is trained on them."""
    rows = tuple(tuple(Fraction(row == column) for column in range(channels))
                 for row in range(channels))
    return _conversion(rows, (CENTRE, ) * channels, (-CENTRE, ) * channels, CENTRE)


def _spans(levels: str) -> Tuple[Fraction, Fraction, int]:
    """What one level of luma and of chroma stands for, and the level of black."""
    if levels == 'full':
        return Fraction(1), Fraction(1), 0
    return Fraction(255, VIDEO_LUMA), Fraction(255, VIDEO_CHROMA), VIDEO_BLACK


def _conversion(rows, offsets, low: Tuple[int, ...], centre: int) -> Conversion:
    one, half = 1 << SHIFT, 1 << SHIFT - 1
    return Conversion(tuple(tuple(round(value * one) for value in row) for row in rows),
                      tuple(round(value * one) + half for value in offsets), low, centre, SHIFT)
