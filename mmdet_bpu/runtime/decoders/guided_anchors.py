"""Anchors whose place and shape the network predicts: Guided Anchoring's RetinaNet."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.box_coders import DELTA_CODER, delta_boxes
from mmdet_bpu.runtime.candidates import Candidates, by_score, concatenated
from mmdet_bpu.runtime.dense_levels import rows_of
from mmdet_bpu.runtime.facts import BASE_ANCHORS, INTEGER, NUMBER, STRIDES, image_shape, one_of
from mmdet_bpu.runtime.outputs import check_levels
from mmdet_bpu.runtime.priors import anchors_at

FACTS = dict(activation=one_of('sigmoid'), strides=STRIDES, anchors=BASE_ANCHORS, coder=DELTA_CODER,
             anchor_coder=DELTA_CODER, loc_filter_thr=NUMBER, score_thr=NUMBER, nms_pre=INTEGER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree, each per level: scores (1, classes, H, W), deltas (1, 4, H, W), logarithms of the
    anchor's width and height over the square's (1, 2, H, W), location (1, 1, H, W).

    Only cells whose location's sigmoid is at least ``loc_filter_thr`` have an anchor. Of a level
    with more than ``nms_pre`` anchors those of the best scores are kept, the best first; each gives
    a candidate for every class above ``score_thr``.
    """
    check_levels(tree, len(facts['strides']), parts=[4])
    parts = []
    for level, (base, stride) in enumerate(zip(facts['anchors'], facts['strides'])):
        logits, deltas, shapes, location = rows_of(
            [part[level] for part in tree], len(base), [facts['num_classes'], 4, 2, 1])
        index = np.flatnonzero(
            sigmoid(location[:, 0]) >= np.float32(facts['loc_filter_thr']))
        scores = sigmoid(logits[index])
        if 0 < facts['nms_pre'] < len(index):
            best = by_score(scores.max(axis=1))[:facts['nms_pre']]
            index, scores = index[best], scores[best]
        row, labels = np.nonzero(scores > np.float32(facts['score_thr']))
        index = index[row]
        squares = anchors_at(index, base, stride, tree[0][level].shape[3])
        growth = np.concatenate([np.zeros_like(shapes), shapes], axis=1)[index]
        anchors = delta_boxes(squares, growth, facts['anchor_coder'], image_shape(facts))
        boxes = delta_boxes(anchors, deltas[index], facts['coder'], image_shape(facts))
        parts.append(Candidates(boxes, scores[row, labels], labels))
    return concatenated(parts)
