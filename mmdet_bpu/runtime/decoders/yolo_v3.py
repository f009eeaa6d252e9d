"""YOLOv3: anchors, one map per level that holds box, objectness and classes."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.box_coders import around
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.dense_levels import rows_of
from mmdet_bpu.runtime.facts import BASE_ANCHORS, NUMBER, STRIDES
from mmdet_bpu.runtime.outputs import check_levels
from mmdet_bpu.runtime.priors import anchors_at
from mmdet_bpu.runtime.scoring import SCORING, best_predictions

FACTS = dict(SCORING, strides=STRIDES, anchors=BASE_ANCHORS, conf_thr=NUMBER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: per level (1, A x (5 + classes), H, W): center x, y, logarithms of width and height,
    objectness, classes.

    The best scores are chosen over all levels at once, among anchors whose objectness is at least
    ``conf_thr`` if that is above 0; then objectness multiplies them. Boxes are not clipped.
    """
    check_levels(tree, len(facts['strides']), parts=[1])
    maps = tree[0]
    rows, anchors, strides = [], [], []
    for level, (base, stride) in enumerate(zip(facts['anchors'], facts['strides'])):
        (part, ) = rows_of([maps[level]], len(base), [5 + facts['num_classes']])
        confident = np.arange(len(part))
        if facts['conf_thr'] > 0:
            confident = np.flatnonzero(sigmoid(part[:, 4]) >= np.float32(facts['conf_thr']))
        rows.append(part[confident])
        anchors.append(anchors_at(confident, base, stride, maps[level].shape[3]))
        strides.append(np.full((len(confident), 1), stride[0], dtype=np.float32))
    rows, anchors, strides = map(np.concatenate, (rows, anchors, strides))
    best = best_predictions(rows[:, 5:], facts)
    rows, anchors, strides = rows[best.index], anchors[best.index], strides[best.index]
    shift = (sigmoid(rows[:, :2]) - np.float32(0.5)) * strides
    centers = (anchors[:, :2] + anchors[:, 2:]) * np.float32(0.5) + shift
    boxes = around(centers, (anchors[:, 2:] - anchors[:, :2]) * np.exp(rows[:, 2:4]))
    return Candidates(boxes, best.scores * sigmoid(rows[:, 4]), best.labels)
