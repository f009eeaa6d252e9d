"""YOLOX: one class per cell, with an objectness."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.box_coders import around
from mmdet_bpu.runtime.candidates import Candidates, concatenated
from mmdet_bpu.runtime.dense_levels import rows_of
from mmdet_bpu.runtime.facts import NUMBER, STRIDES
from mmdet_bpu.runtime.outputs import check_levels
from mmdet_bpu.runtime.priors import points_at

FACTS = dict(strides=STRIDES, point_offset=NUMBER, score_thr=NUMBER)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree, each per level: class logits (1, classes, H, W); boxes (1, 4, H, W): center in strides
    from the cell's point, logarithms of width and height in strides; objectness (1, 1, H, W).

    A cell's score is its best class times its objectness, at least ``score_thr``. Boxes are not
    clipped.
    """
    check_levels(tree, len(facts['strides']), parts=[3])
    threshold, parts = np.float32(facts['score_thr']), []
    for level, stride in enumerate(facts['strides']):
        logits, regressed, objectness = rows_of(
            [part[level] for part in tree], 1, [facts['num_classes'], 4, 1])
        objectness = sigmoid(objectness[:, 0])
        # No class is likelier than 1, so these are all that can reach the threshold.
        index = np.flatnonzero(objectness >= threshold)
        probabilities = sigmoid(logits[index])
        labels = probabilities.argmax(axis=1)
        scores = probabilities.max(axis=1) * objectness[index]
        above = scores >= threshold
        index = index[above]
        points = points_at(index, facts['point_offset'], stride, tree[0][level].shape[3])
        size = np.float32(stride)
        boxes = around(regressed[index, :2] * size + points, np.exp(regressed[index, 2:]) * size)
        parts.append(Candidates(boxes, scores[above], labels[above]))
    return concatenated(parts)
