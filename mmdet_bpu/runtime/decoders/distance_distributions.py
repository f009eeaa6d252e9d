"""Distances as the mean of a distribution over whole strides: GFL, LD."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import softmax
from mmdet_bpu.runtime.box_coders import clipped, distance_boxes
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import dense_candidates
from mmdet_bpu.runtime.facts import BASE_ANCHORS, COUNT, FLAG, STRIDES, image_shape
from mmdet_bpu.runtime.priors import anchors_at
from mmdet_bpu.runtime.scoring import SCORING

FACTS = dict(SCORING, strides=STRIDES, anchors=BASE_ANCHORS, reg_max=COUNT, clip=FLAG)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, classes, H, W) and distributions per level
    (1, 4 x (reg_max + 1), H, W): logits of 0, 1, ... reg_max strides from the anchor's center to
    left, then to top, right, bottom."""
    bins = np.arange(facts['reg_max'] + 1, dtype=np.float32)

    def boxes_of(level, index, width, logits):
        stride = facts['strides'][level]
        anchors = anchors_at(index, facts['anchors'][level], stride, width)
        centers = (anchors[:, :2] + anchors[:, 2:]) / np.float32(2)
        distances = softmax(logits.reshape(-1, 4, len(bins))) @ bins * np.float32(stride[0])
        boxes = distance_boxes(centers, distances)
        return clipped(boxes, image_shape(facts)) if facts['clip'] else boxes

    return dense_candidates(tree, facts, list(map(len, facts['anchors'])), 4 * len(bins), boxes_of)
