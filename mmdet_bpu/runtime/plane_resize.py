"""Planes of bytes at another size: bilinear between pixel centres, in integers alone.

A pixel's centre lies half a pixel from its edge, as cv2 and ``F.interpolate`` without align_corners
have it: result i of n_out reads the position ``(2 i + 1) n_in / (2 n_out) - 1/2`` of n_in, and the
border beyond it. Between two pixels there are 2**11 steps, so a weighted sum of four has at most 30
bits.
"""
from typing import Tuple

import numpy as np

FRACTION_BITS = 11


def resized_plane(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """A plane at another size.

    Args:
        plane (np.ndarray): (h, w, channels) uint8.
        height (int): Of the result, px.
        width (int): Of the result, px.

    Returns:
        np.ndarray: (height, width, channels) uint8; ``plane`` itself where it has that size.
    """
    if plane.shape[:2] == (height, width):
        return plane
    one, half = 1 << FRACTION_BITS, 1 << 2 * FRACTION_BITS - 1
    above, below, down = _neighbours(plane.shape[0], height)
    left, right, along = _neighbours(plane.shape[1], width)
    along = along[:, None]
    rows, used = np.unique(np.concatenate([above, below]), return_inverse=True)
    values = plane[rows].astype(np.int32)
    blended = values[:, left] * (one - along) + values[:, right] * along
    down = down[:, None, None]
    total = blended[used[:height]] * (one - down) + blended[used[height:]] * down
    return (total + half >> 2 * FRACTION_BITS).astype(np.uint8)


def _neighbours(size: int, result: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per result, the pixel before it, the one behind it, and how far it is on the way, int32."""
    step = 2 * result  # positions in units of 1 / step px
    position = (2 * np.arange(result, dtype=np.int64) + 1) * size - result
    position = np.clip(position, 0, (size - 1) * step)
    before = position // step
    # To the nearest of the steps, ties up.
    fraction = ((position - before * step << FRACTION_BITS + 1) + step) // (2 * step)
    behind = np.minimum(before + 1, size - 1)
    return before, behind, fraction.astype(np.int32)
