"""From candidates to detections: small boxes go, then suppression, then the best are kept."""
from typing import Any, Dict

import numpy as np

from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.nms import batched_nms


def suppressed(candidates: Candidates, facts: Dict[str, Any]) -> Candidates:
    """Candidates that are left, the best first.

    Args:
        candidates (Candidates): In px of the picture.
        facts (dict): Of the contract: ``min_bbox_size`` (px that both sides must exceed, or None),
            ``nms`` (None: nothing is suppressed), ``max_per_img`` (None: all are kept).
    """
    if facts['min_bbox_size'] is not None:
        sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        candidates = candidates.take((sides > np.float32(facts['min_bbox_size'])).all(axis=1))
    kept, scores = batched_nms(*candidates, facts['nms'], limit=facts['max_per_img'])
    return Candidates(candidates.boxes[kept], scores, candidates.labels[kept])
