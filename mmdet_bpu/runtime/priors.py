"""Where predictions of a feature level start from: anchors and points, of chosen cells only.

Predictions of a level are numbered row by row, cell by cell, prior by prior.
"""
from typing import List, Sequence

import numpy as np


def anchors_at(index: np.ndarray, base_anchors: List[Sequence[float]], stride: Sequence[float],
               width: int) -> np.ndarray:
    """Anchors of some predictions.

    Args:
        index (np.ndarray): (K,) integers.
        base_anchors (list): A boxes x1, y1, x2, y2 in px, those of the first cell.
        stride (list): Between cells, across and down, px.
        width (int): Cells in a row.

    Returns:
        np.ndarray: (K, 4) float32, x1, y1, x2, y2 in px.
    """
    base = np.asarray(base_anchors, dtype=np.float32)
    cell, prior = np.divmod(index, len(base))
    return base[prior] + np.tile(_grid(cell, 0.0, stride, width), 2)


def points_at(index: np.ndarray, offset: float, stride: Sequence[float],
              width: int) -> np.ndarray:
    """Points of some predictions, one in each cell, ``offset`` strides after its corner.

    Returns:
        np.ndarray: (K, 2) float32, x and y in px.
    """
    return _grid(index, offset, stride, width)


def _grid(cell: np.ndarray, offset: float, stride: Sequence[float], width: int) -> np.ndarray:
    down, across = np.divmod(cell, width)
    steps = np.stack([across, down], axis=1).astype(np.float32) + np.float32(offset)
    return steps * np.float32(stride)
