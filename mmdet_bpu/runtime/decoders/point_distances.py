"""Points with distances to four sides, in px: FCOS, VFNet, RTMDet, AutoAssign, CenterNet2, ..."""
from typing import Any, Dict, List

from mmdet_bpu.runtime.box_coders import clipped, distance_boxes
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import FLAG, NUMBER, STRIDES, image_shape
from mmdet_bpu.runtime.priors import points_at
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES, point_offset=NUMBER, clip=FLAG)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, classes, H, W), distances to left, top, right, bottom in px per
    level (1, 4, H, W) and, where the head has it, centerness per level (1, 1, H, W)."""

    def boxes_of(level, index, width, distances):
        points = points_at(index, facts['point_offset'], facts['strides'][level], width)
        boxes = distance_boxes(points, distances)
        return clipped(boxes, image_shape(facts)) if facts['clip'] else boxes

    return dense_candidates(tree, facts, [1] * len(facts['strides']), 4, boxes_of)
