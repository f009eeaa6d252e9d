"""Boxes with a score and a label each, as decoders give them and suppression keeps them."""
from typing import List, NamedTuple

import numpy as np


class Candidates(NamedTuple):
    """What may be a detection.

    Attributes:
        boxes (np.ndarray): (N, 4) float32, corners x1, y1, x2, y2 in px.
        scores (np.ndarray): (N,) float32.
        labels (np.ndarray): (N,) int64.
    """
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def take(self, which: np.ndarray) -> 'Candidates':
        """Those of some indices, in that order, or those where a mask is true."""
        return Candidates(self.boxes[which], self.scores[which], self.labels[which])


def concatenated(parts: List[Candidates]) -> Candidates:
    """All candidates of a list, one part after the other."""
    return Candidates(*(np.concatenate(arrays) for arrays in zip(*parts)))


def by_score(scores: np.ndarray) -> np.ndarray:
    """Indices of scores (N,), the highest first; of equal ones the lower index first."""
    return np.argsort(-scores, kind='stable')
