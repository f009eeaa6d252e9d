"""PAA: anchors and deltas; the root of score x IoU decides which are looked at."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.box_coders import ANCHOR_CODER, anchor_boxes
from mmdet_bpu.runtime.candidates import Candidates, by_score, concatenated
from mmdet_bpu.runtime.dense_levels import rows_of
from mmdet_bpu.runtime.facts import BASE_ANCHORS, INTEGER, NUMBER, STRIDES, image_shape
from mmdet_bpu.runtime.outputs import check_levels
from mmdet_bpu.runtime.priors import anchors_at

FACTS = dict(strides=STRIDES, anchors=BASE_ANCHORS, coder=ANCHOR_CODER, score_thr=NUMBER,
             nms_pre=INTEGER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree, each per level: scores (1, A x classes, H, W), deltas (1, A x 4, H, W), IoU
    (1, A, H, W).

    Of a level with more than ``nms_pre`` anchors those of the best scores are kept, the best
    first; each gives a candidate for every class above ``score_thr``.
    """
    check_levels(tree, len(facts['strides']), parts=[3])
    parts = []
    for level, (base, stride) in enumerate(zip(facts['anchors'], facts['strides'])):
        logits, deltas, overlap = rows_of(
            [part[level] for part in tree], len(base), [facts['num_classes'], 4, 1])
        scores = np.sqrt(sigmoid(logits) * sigmoid(overlap))
        index = np.arange(len(scores))
        if 0 < facts['nms_pre'] < len(scores):
            index = by_score(scores.max(axis=1))[:facts['nms_pre']]
        row, labels = np.nonzero(scores[index] > np.float32(facts['score_thr']))
        index = index[row]
        anchors = anchors_at(index, base, stride, tree[0][level].shape[3])
        boxes = anchor_boxes(anchors, deltas[index], facts['coder'], image_shape(facts))
        parts.append(Candidates(boxes, scores[index, labels], labels))
    return concatenated(parts)
