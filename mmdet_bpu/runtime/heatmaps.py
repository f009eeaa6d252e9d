"""Peaks of heat maps: CenterNet and CornerNet."""
from typing import NamedTuple

import numpy as np

from mmdet_bpu.runtime.candidates import by_score


class Peaks(NamedTuple):
    """Peaks, the highest first.

    Attributes, each (K,):
        scores (np.ndarray): float32.
        labels (np.ndarray): int64.
        rows (np.ndarray): int64.
        columns (np.ndarray): int64.
    """
    scores: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def values_of(self, level: np.ndarray) -> np.ndarray:
        """What a map (1, C, H, W) holds at the peaks, (K, C)."""
        return level[0][:, self.rows, self.columns].T


def peaks_of(heat: np.ndarray, count: int, kernel: int) -> Peaks:
    """The ``count`` highest values that no neighbour exceeds; other values count as 0.

    Args:
        heat (np.ndarray): (1, classes, H, W) float32.
        count (int): How many, at most.
        kernel (int): Odd width of the square in which a peak is the maximum, px of the map.
    """
    heat = heat[0]
    highest = heat
    for axis in (1, 2):
        margin = [(0, 0)] * 3
        margin[axis] = (kernel // 2, kernel // 2)
        padded = np.pad(highest, margin, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=axis)
        highest = windows.max(axis=-1)
    values = np.where(highest == heat, heat, np.float32(0)).ravel()
    best = by_score(values)[:count]
    labels, rows, columns = np.unravel_index(best, heat.shape)
    return Peaks(values[best], labels, rows, columns)
