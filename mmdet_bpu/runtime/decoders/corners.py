"""Boxes as pairs of corners, peaks of two heat maps: CornerNet, CentripetalNet."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.candidates import Candidates, by_score
from mmdet_bpu.runtime.corner_pairs import Corner, is_pair, pair_boxes
from mmdet_bpu.runtime.facts import COUNT, FLAG, NUMBER
from mmdet_bpu.runtime.heatmaps import peaks_of

FACTS = dict(corner_topk=COUNT, kernel=COUNT, distance_threshold=NUMBER, candidates=COUNT,
             centripetal=FLAG)
# Where a head puts its maps: of the top-left corner; the bottom-right one's come right after.
HEAT, EMBEDDING, OFFSET = 0, 2, 4
CENTRIPETAL_OFFSET, CENTRIPETAL_SHIFT, CENTRIPETAL_PARTS = 2, 6, 8


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: lists of maps per stage of the network, of which the last one counts, (1, C, H, W): heat
    of top-left and of bottom-right corners (classes); embeddings of both (1); offsets of both (2, x
    and y in px of the map). CentripetalNet has no embeddings, and after the offsets the guiding
    shifts of both, which are not read, and the centripetal shifts of both (2), logarithms of px of
    the map.

    The best ``candidates`` pairs are kept; a pair's score is the mean of its corners'.
    """
    maps = [part[-1] if isinstance(part, list) and part else None for part in tree]
    parts = CENTRIPETAL_PARTS if facts['centripetal'] else OFFSET + 2
    if len(maps) != parts or any(level is None or level.shape[2:] != maps[0].shape[2:]
                                 for level in maps) or maps[0].shape[1] != facts['num_classes']:
        raise BpuError(f'outputs of the network: expected {parts} lists of maps of one size, the '
                       f'first of {facts["num_classes"]} classes')
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
    heat = sigmoid(maps[HEAT // 2])
    peaks = peaks_of(heat, facts['corner_topk'], facts['kernel'])
    height, width = facts['input_shape']
    step = np.float32([width / heat.shape[3], height / heat.shape[2]])
    origin = np.float32(facts.get('origin', (0, 0)))
    cells = np.stack([peaks.columns, peaks.rows], axis=1).astype(np.float32)

    def in_picture(points):
        """Points of the map in px of the input, not left of or above the picture."""
        return np.maximum(points * step, origin)

    if not facts['centripetal']:
        offsets, embeddings = maps[OFFSET // 2], maps[EMBEDDING // 2]
        points = cells + peaks.values_of(offsets)
        return Corner(in_picture(points), peaks.scores, peaks.labels,
                      embeddings=peaks.values_of(embeddings)[:, 0])
    points = cells + peaks.values_of(maps[CENTRIPETAL_OFFSET // 2])
    shift = np.exp(peaks.values_of(maps[CENTRIPETAL_SHIFT // 2]))
    return Corner(in_picture(points), peaks.scores, peaks.labels,
                  centers=in_picture(points + sign * shift))
