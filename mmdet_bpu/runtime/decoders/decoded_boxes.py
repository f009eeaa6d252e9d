"""Boxes and probabilities that the network has decoded itself, in strides: TOOD."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import STRIDES
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: probabilities per level (1, classes, H, W) and boxes per level (1, 4, H, W), x1, y1,
    x2, y2 in strides of the level. They are not clipped."""

    def boxes_of(level, index, width, boxes):
        return boxes * np.float32(facts['strides'][level][0])

    return dense_candidates(tree, facts, [1] * len(facts['strides']), 4, boxes_of)
