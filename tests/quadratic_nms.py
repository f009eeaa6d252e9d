"""Non-maximum suppression written for clarity: every box against every other one, exactly.

Oracles for :mod:`mmdet_bpu.runtime.nms`, and stand-ins for compiled operators under stock heads.
"""
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import torch


def exact_iou(a, b, offset=0):
    """IoU of two boxes in any numbers; None where it is 0 / 0."""
    area_a, area_b = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    union = area_a + area_b - width * height
    return width * height / union if union else None


def exact_nms(boxes, scores, iou_threshold, offset=0):
    """Indices kept, the best first, of equal scores the first; all arithmetic in rationals."""
    boxes = [[Fraction(float(side)) for side in box] for box in boxes]
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        overlaps = [exact_iou(boxes[index], boxes[other], offset) for other in kept]
        if not any(iou is not None and iou > iou_threshold for iou in overlaps):
            kept.append(index)
    return kept


def exact_soft_nms(boxes, scores, decay, min_score, offset=0):
    """(Indices, scores) in the order in which boxes are taken, for scores that are never equal.

    Args:
        decay (Callable): IoU -> factor of a score.
    """
    left = {index: score for index, score in enumerate(scores)}
    taken = []
    while left:
        best = max(left, key=left.get)
        taken.append((best, left.pop(best)))
        for index in list(left):
            left[index] *= decay(exact_iou(boxes[best], boxes[index], offset) or 0)
            if left[index] < min_score:
                del left[index]
    return [index for index, _ in taken], [score for _, score in taken]


def _nms(boxes, scores, iou_threshold, offset):
    """The compiled operator's arguments, and its float32 steps: at the border of an image, IoUs
    that are the threshold but for rounding are common."""
    left = scores.sort(descending=True, stable=True)[1]
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = torch.minimum(boxes[best, 2:], boxes[left, 2:]) - torch.maximum(
            boxes[best, :2], boxes[left, :2]) + offset
        inter = sides.clamp(min=0).prod(1)
        left = left[~(inter / (areas[best] + areas[left] - inter) > np.float32(iou_threshold))]
    return torch.tensor(kept, dtype=torch.long)


def _soft_nms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset):
    """The compiled operator's arguments; float64; the gaussian method, as stock configs have it."""
    assert method == 2
    kept, lowered = exact_soft_nms(boxes.tolist(), scores.tolist(),
                                   lambda iou: float(np.exp(-iou * iou / sigma)), min_score, offset)
    dets[:len(kept)] = torch.cat([boxes[kept], torch.tensor(lowered)[:, None]], dim=1)
    return torch.tensor(kept, dtype=torch.long)


QUADRATIC_OPERATORS = SimpleNamespace(nms=_nms, softnms=_soft_nms)
