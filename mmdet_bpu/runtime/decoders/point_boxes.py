"""Boxes around a point, in strides from it: RepPoints, whose network turns point sets to boxes."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.box_coders import clipped
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import NUMBER, STRIDES, image_shape
from mmdet_bpu.runtime.priors import points_at
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES, point_offset=NUMBER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, classes, H, W) and boxes per level (1, 4, H, W): x1, y1, x2, y2 in
    strides, seen from the point of the cell."""

    def boxes_of(level, index, width, boxes):
        stride = facts['strides'][level]
        points = points_at(index, facts['point_offset'], stride, width)
        return clipped(boxes * np.float32(stride[0]) + np.tile(points, 2), image_shape(facts))

    return dense_candidates(tree, facts, [1] * len(facts['strides']), 4, boxes_of)
