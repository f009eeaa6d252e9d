"""Boxes as pairs of corners, peaks of two heat maps: CornerNet, CentripetalNet."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.candidates import Candidates, by_score
from mmdet_bpu.runtime.corner_pairs import Corner, is_pair, pair_boxes
from mmdet_bpu.runtime.facts import COUNT, FLAG, NUMBER
from mmdet_bpu.runtime.heatmaps import peaks_of
from mmdet_bpu.runtime.outputs import check_levels, check_maps

FACTS = dict(corner_topk=COUNT, kernel=COUNT, distance_threshold=NUMBER, candidates=COUNT,
             centripetal=FLAG)
# Channels of the maps of each corner, in the order of the head, the top-left one's first: heat has
# one for each class.
HEAT, EMBEDDING, OFFSET = range(3)
EMBEDDED = (None, 1, 2)
CENTRIPETAL_OFFSET, GUIDING, SHIFT = range(1, 4)
CENTRIPETAL = (None, 2, 2, 2)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: lists of maps (1, C, H, W), one per stage of the network, of which the last counts:
    heat of top-left and of bottom-right corners (classes); embeddings of both (1); offsets of both
    (2, x and y in px of the map). CentripetalNet has no embeddings, and after the offsets the
    guiding shifts of both, which are not read, and the centripetal shifts of both (2), logarithms
    of px of the map.

    The best ``candidates`` pairs are kept; a pair's score is the mean of its corners'.
    """
    stages = len(tree[0]) if tree and isinstance(tree[0], list) else 0
    kinds = CENTRIPETAL if facts['centripetal'] else EMBEDDED
    check_levels(tree, max(stages, 1), parts=[2 * len(kinds)])
    maps = [part[-1] for part in tree]
    check_maps(maps, [kind or facts['num_classes'] for kind in kinds for _ in range(2)])
    first, second = (_corners(maps[side::2], facts, sign) for side, sign in ((0, 1), (1, -1)))
    pairs = is_pair(first, second, facts['distance_threshold'])
    scores = (first.scores[:, None] + second.scores) / np.float32(2)
    scores = np.where(pairs, scores, np.float32(-1)).ravel()
    best = by_score(scores)[:facts['candidates']]
    best = best[scores[best] >= 0]
    boxes = pair_boxes(first, second).reshape(-1, 4)[best]
    return Candidates(boxes, scores[best], first.labels[best // len(second.labels)])


def _corners(maps: List[np.ndarray], facts: Dict[str, Any], sign: int) -> Corner:
    """Corners of one kind from its own maps; ``sign`` says where its box's center lies."""
    heat = sigmoid(maps[HEAT])
    peaks = peaks_of(heat, facts['corner_topk'], facts['kernel'])
    height, width = facts['input_shape']
    step = np.float32([width / heat.shape[3], height / heat.shape[2]])
    origin = np.float32(facts.get('origin', (0, 0)))
    cells = np.stack([peaks.columns, peaks.rows], axis=1).astype(np.float32)

    def in_picture(points):
        """Points of the map in px of the input, not left of or above the picture."""
        return np.maximum(points * step, origin)

    if not facts['centripetal']:
        offsets, embeddings = maps[OFFSET], maps[EMBEDDING]
        points = cells + peaks.values_of(offsets)
        return Corner(in_picture(points), peaks.scores, peaks.labels,
                      embeddings=peaks.values_of(embeddings)[:, 0])
    points = cells + peaks.values_of(maps[CENTRIPETAL_OFFSET])
    shift = np.exp(peaks.values_of(maps[SHIFT]))
    return Corner(in_picture(points), peaks.scores, peaks.labels,
                  centers=in_picture(points + sign * shift))
