"""Anchors that are moved and scaled: RetinaNet, ATSS, FreeAnchor, SSD, YOLOF, FSAF, DDOD, ..."""
from typing import Any, Dict, List

from mmdet_bpu.runtime.box_coders import ANCHOR_CODER, anchor_boxes
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import BASE_ANCHORS, STRIDES, image_shape
from mmdet_bpu.runtime.priors import anchors_at
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES, anchors=BASE_ANCHORS, coder=ANCHOR_CODER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, A x classes, H, W), deltas per level (1, A x 4, H, W) and, where
    the head has them, centerness or IoU per level (1, A, H, W)."""

    def boxes_of(level, index, width, deltas):
        anchors = anchors_at(index, facts['anchors'][level], facts['strides'][level], width)
        return anchor_boxes(anchors, deltas, facts['coder'], image_shape(facts))

    return dense_candidates(tree, facts, list(map(len, facts['anchors'])), 4, boxes_of)
