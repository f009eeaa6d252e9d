"""Boxes as the mean of the candidates around them (PAA, Kim and Lee, 2020, arXiv:2007.08103)."""
import numpy as np

from mmdet_bpu.runtime.candidates import Candidates

LEAST_OVERLAP = 0.01  # IoU of a candidate that takes part
SPREAD = 0.025  # two times the variance of 1 - IoU in a candidate's weight


def vote(kept: Candidates, candidates: Candidates) -> Candidates:
    """Kept boxes, each at the mean of the candidates of its label that overlap it.

    A candidate weighs ``score x exp(-(1 - IoU)^2 / 0.025)``. Scores and labels stay. A box of no
    area overlaps none, not even itself: as in mmdet, it becomes NaN.

    Args:
        kept (Candidates): After suppression.
        candidates (Candidates): Before it.
    """
    boxes = kept.boxes.copy()
    for label in np.unique(kept.labels):
        voters = candidates.take(candidates.labels == label)
        for row in np.flatnonzero(kept.labels == label):
            overlap = _overlaps(kept.boxes[row], voters.boxes)
            near = overlap > np.float32(LEAST_OVERLAP)
            weights = np.exp(-(1 - overlap[near])**2 / np.float32(SPREAD)) * voters.scores[near]
            with np.errstate(divide='ignore', invalid='ignore'):
                boxes[row] = (weights[:, None] * voters.boxes[near]).sum(axis=0) / weights.sum()
    return Candidates(boxes, kept.scores, kept.labels)


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (N,) of a box (4,) with boxes (N, 4), of an area of at least 1e-6."""
    size = np.maximum(np.float32(0), np.minimum(box[2:], boxes[:, 2:])
                      - np.maximum(box[:2], boxes[:, :2]))
    inter = size[:, 0] * size[:, 1]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return inter / np.maximum(np.prod(box[2:] - box[:2]) + areas - inter, np.float32(1e-6))
