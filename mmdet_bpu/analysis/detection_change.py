"""How much the detections in a picture changed: what a ratio in dB of a tensor does not tell."""
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from mmdet_bpu.analysis.pictures import Detections

SAME_BOX = 0.5  # IoU from which on two boxes of one class are the same object, as in AP50


@dataclass(frozen=True)
class DetectionChange:
    """What became of the detections of one model in another.

    Attributes:
        change (float): Sum of the score that was lost or won: of pairs the difference of their
            scores, of boxes without a partner their score.
        lost (int): Boxes of the first that have no partner.
        added (int): Boxes of the second that have none.
    """
    change: float
    lost: int
    added: int


def detection_change(first: Detections, second: Detections, score_thr: float) -> DetectionChange:
    """Compare two lists of boxes of one picture.

    The best boxes choose first among those of their class with an IoU of at least
    :data:`SAME_BOX`. A partner may have a score below the threshold: what fell from 0.31 to 0.29
    was not lost.

    Args:
        first (Detections), second (Detections): The best score first.
        score_thr (float): Boxes below are no objects by themselves.
    """
    pairs = _pairs(first, second)
    total = 0.0
    for i, j in pairs:
        if max(first.scores[i], second.scores[j]) >= score_thr:
            total += abs(float(first.scores[i]) - float(second.scores[j]))
    alone = [(first, {i for i, _ in pairs}), (second, {j for _, j in pairs})]
    counts = []
    for found, paired in alone:
        scores = [float(s) for k, s in enumerate(found.scores)
                  if k not in paired and s >= score_thr]
        total += sum(scores)
        counts.append(len(scores))
    lost, added = counts
    return DetectionChange(total, lost, added)


def _pairs(first: Detections, second: Detections) -> List[Tuple[int, int]]:
    overlap = iou(first.boxes, second.boxes)
    overlap[first.labels[:, None] != second.labels[None]] = 0
    pairs = []
    for i in range(len(first.scores)):
        j = int(overlap[i].argmax()) if overlap.shape[1] else 0
        if overlap.shape[1] and overlap[i, j] >= SAME_BOX:
            pairs.append((i, j))
            overlap[:, j] = 0
    return pairs


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4): x1, y1, x2, y2."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (first, second)]
    union = area[0][:, None] + area[1][None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)
