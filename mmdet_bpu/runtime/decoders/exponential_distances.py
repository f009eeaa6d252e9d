"""Points with the logarithms of distances to four sides, in base lengths: FoveaBox."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.box_coders import clipped, distance_boxes
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import NUMBER, STRIDES, image_shape, per_level
from mmdet_bpu.runtime.priors import points_at
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES, point_offset=NUMBER, base_lengths=per_level(NUMBER))


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, classes, H, W) and per level (1, 4, H, W) the logarithms of the
    distances to left, top, right, bottom over the base length (px). Boxes end inside the last
    pixel of the input."""

    def boxes_of(level, index, width, logarithms):
        points = points_at(index, facts['point_offset'], facts['strides'][level], width)
        distances = np.float32(facts['base_lengths'][level]) * np.exp(logarithms)
        return clipped(distance_boxes(points, distances), image_shape(facts), inset=1)

    return dense_candidates(tree, facts, [1] * len(facts['strides']), 4, boxes_of)
