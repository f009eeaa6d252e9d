"""Non-maximum suppression as ``mmcv.ops.batched_nms`` does it on a CPU, in float32.

The intersection over union of two boxes is, each step rounded to float32,

    area  = (x2 - x1 + offset) * (y2 - y1 + offset)
    inter = max(0, min(x2, x2') - max(x1, x1') + offset) * (the same of y)
    IoU   = inter / (area + area' - inter)

and NaN, which exceeds no threshold, where it is 0 / 0. Of equal scores the lower index is first.
"""
from typing import Any, Dict, Optional, Tuple

import numpy as np

from mmdet_bpu.runtime.candidates import by_score

Kept = Tuple[np.ndarray, np.ndarray]  # indices (K,) int64, scores (K,) float32; the best first


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, offset: int = 0,
               score_threshold: float = 0.0, max_num: int = -1) -> Kept:
    """Keep a box unless its IoU with a better one that is kept exceeds the threshold.

    Args:
        boxes (np.ndarray): (N, 4) float32, px.
        scores (np.ndarray): (N,) float32.
        iou_threshold (float): Rounded to float32, as in mmcv's compiled operator.
        offset (int): 1 where x2 and y2 are the last pixel inside a box. Defaults to 0.
        score_threshold (float): If above 0, boxes of no higher score are dropped first.
        max_num (int): If above 0, so many are kept at most. Defaults to -1.
    """
    order = by_score(scores)
    if score_threshold > 0:
        order = order[scores[order] > np.float32(score_threshold)]
    corners = boxes[order].T
    areas = _areas(corners, offset)
    threshold, kept = np.float32(iou_threshold), []
    while len(order) and not 0 < max_num <= len(kept):
        kept.append(order[0])
        left = ~(_overlaps(corners, areas, offset) > threshold)
        order, corners, areas = order[1:][left], corners[:, 1:][:, left], areas[1:][left]
    kept = np.array(kept, dtype=np.int64)
    return kept, scores[kept]


def soft_nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float = 0.3,
             sigma: float = 0.5, min_score: float = 1e-3, method: str = 'linear',
             offset: int = 0) -> Kept:
    """Lower the scores of what overlaps a better box (Bodla et al., 2017, arXiv:1704.04503).

    The best of the boxes left is kept; the score of each other one is multiplied by

        naive      0 if IoU >= iou_threshold else 1
        linear     1 - IoU if IoU >= iou_threshold else 1
        gaussian   exp(-IoU^2 / sigma)

    and what falls below ``min_score`` leaves. The order of equal scores is that of mmcv's operator,
    which works in place: the first box moves to where the best one was, and the last box to where
    one has left.

    Args:
        boxes (np.ndarray): (N, 4) float32, px.
        scores (np.ndarray): (N,) float32.
    """
    left, scores, corners = np.arange(len(scores)), scores.copy(), boxes.T.copy()
    areas = _areas(corners, offset)
    state = [left, scores, corners, areas]
    kept, kept_scores = [], []
    while len(state[0]):
        # A scan for a greater score passes NaN over, unless it starts there.
        best = 0 if np.isnan(state[1][0]) else int(np.nanargmax(state[1]))
        for array in state:
            array[..., [0, best]] = array[..., [best, 0]]
        kept.append(state[0][0])
        kept_scores.append(state[1][0])
        overlap = _overlaps(state[2], state[3], offset)
        state = [array[..., 1:] for array in state]
        state[1] *= _decay(overlap, np.float32(iou_threshold), np.float32(sigma), method)
        low = state[1] < np.float32(min_score)
        if low.any():
            stay = _filled_from_the_end(low)
            state = [array[..., stay] for array in state]
    return np.array(kept, dtype=np.int64), np.array(kept_scores, dtype=np.float32)


METHODS = {'nms': greedy_nms, 'soft_nms': soft_nms}


def batched_nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray,
                nms: Optional[Dict[str, Any]], limit: Optional[int] = None) -> Kept:
    """Suppress among boxes of one label, or among all of them.

    Boxes of a label are moved by label x (greatest coordinate + 1), so that labels do not overlap;
    from ``split_thr`` boxes on, each label is suppressed by itself instead, even if
    ``class_agnostic`` is set. Both as mmcv does it.

    Args:
        boxes (np.ndarray): (N, 4) float32, px.
        scores (np.ndarray): (N,) float32.
        labels (np.ndarray): (N,) integers.
        nms (dict, optional): ``type`` (a name in :data:`METHODS`), ``class_agnostic``,
            ``split_thr``, ``max_num`` and the arguments of the method. None only sorts.
        limit (int, optional): The best so many are wanted. Defaults to None, all of them.

    Returns:
        tuple: Indices (K,) int64 and scores (K,) float32, the best first.
    """
    if nms is None or len(scores) == 0:
        order = by_score(scores)[:limit]
        return order, scores[order]
    options = dict(nms)
    method = METHODS[options.pop('type')]
    split_thr, max_num = options.pop('split_thr', 10000), options.pop('max_num', -1)
    if not options.pop('class_agnostic', False):
        shift = labels.astype(np.float32) * (boxes.max() + np.float32(1))
        boxes = boxes + shift[:, None]
    stop = min([n for n in (max_num, limit) if n and n > 0], default=None)
    if len(boxes) < split_thr:
        if method is greedy_nms and stop:
            options['max_num'] = stop
        kept, scores = method(boxes, scores, **options)
    else:
        kept, scores = _label_by_label(boxes, scores, labels, method, options)
    return kept[:stop], scores[:stop]


def _label_by_label(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, method,
                    options: Dict[str, Any]) -> Kept:
    parts = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept, kept_scores = method(boxes[members], scores[members], **options)
        parts.append((members[kept], kept_scores))
    kept, scores = (np.concatenate(arrays) for arrays in zip(*parts))
    by_index = np.argsort(kept)
    kept, scores = kept[by_index], scores[by_index]
    order = by_score(scores)
    return kept[order], scores[order]


def _areas(corners: np.ndarray, offset: int) -> np.ndarray:
    """Areas (N,) of boxes (4, N)."""
    x1, y1, x2, y2 = corners
    return (x2 - x1 + offset) * (y2 - y1 + offset)


@np.errstate(divide='ignore', invalid='ignore')
def _overlaps(corners: np.ndarray, areas: np.ndarray, offset: int) -> np.ndarray:
    """IoU (N - 1,) of the first box of (4, N) with each of the others."""
    (x1, y1, x2, y2), (left, top, right, bottom) = corners[:, 0], corners[:, 1:]
    zero = np.float32(0)
    width = np.maximum(zero, np.minimum(x2, right) - np.maximum(x1, left) + offset)
    height = np.maximum(zero, np.minimum(y2, bottom) - np.maximum(y1, top) + offset)
    inter = width * height
    return inter / (areas[0] + areas[1:] - inter)


def _decay(overlap: np.ndarray, iou_threshold: np.float32, sigma: np.float32,
           method: str) -> np.ndarray:
    """Factors (N,) float32 of the scores of boxes of some overlap with the best one."""
    if method == 'gaussian':
        # Rounded once: numpy's own float32 exponential may be some units in the last place off.
        return np.exp((-(overlap * overlap) / sigma).astype(np.float64)).astype(np.float32)
    lowered = {'naive': np.float32(0), 'linear': 1 - overlap}[method]
    return np.where(overlap >= iou_threshold, lowered, np.float32(1))


def _filled_from_the_end(leaving: np.ndarray) -> np.ndarray:
    """Indices of a mask (N,) that stay, when what leaves is replaced by the last that is left."""
    places, end, place = np.arange(len(leaving)), len(leaving), 0
    while place < end:
        if leaving[places[place]]:
            end -= 1
            places[place] = places[end]
        else:
            place += 1
    return places[:end]
