"""Sides by the bucket that holds each and an offset in it: SABL's RetinaNet."""
from typing import Any, Dict, List, Tuple

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.activations import softmax
from mmdet_bpu.runtime.box_coders import around, clipped
from mmdet_bpu.runtime.candidates import Candidates, concatenated
from mmdet_bpu.runtime.dense_levels import rows_of, score_channels
from mmdet_bpu.runtime.facts import BASE_ANCHORS, COUNT, FLAG, NUMBER, STRIDES, image_shape
from mmdet_bpu.runtime.outputs import check_levels
from mmdet_bpu.runtime.priors import anchors_at
from mmdet_bpu.runtime.scoring import SCORING, best_predictions

FACTS = dict(SCORING, strides=STRIDES, anchors=BASE_ANCHORS, num_buckets=COUNT,
             scale_factor=NUMBER, clip=FLAG)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: scores per level (1, classes, H, W) and per level a pair of maps
    (1, 4 x half, H, W), half of ``num_buckets`` rounded up: logits of the buckets of the left,
    right, top and bottom side, counted from that side on, and offsets in buckets.

    How sure the buckets are multiplies the scores once they are chosen.
    """
    check_levels(tree, len(facts['strides']), parts=[2])
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in tree[1]):
        raise BpuError('outputs of the network: expected two maps of buckets in each level')
    half, parts = (facts['num_buckets'] + 1) // 2, []
    for level, (base, stride) in enumerate(zip(facts['anchors'], facts['strides'])):
        logits, buckets, offsets = rows_of(
            [tree[0][level], *tree[1][level]], len(base),
            [score_channels(facts), 4 * half, 4 * half])
        best = best_predictions(logits, facts)
        anchors = anchors_at(best.index, base, stride, tree[0][level].shape[3])
        boxes, confidence = _bucket_boxes(
            anchors, buckets[best.index].reshape(-1, 4, half),
            offsets[best.index].reshape(-1, 4, half), facts)
        parts.append(Candidates(boxes, best.scores * confidence, best.labels))
    return concatenated(parts)


def _bucket_boxes(anchors: np.ndarray, logits: np.ndarray, offsets: np.ndarray,
                  facts: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes (K, 4) and how sure the buckets are (K,), from anchors (K, 4) and maps (K, 4, half).

    A side lies in its likeliest bucket. A side is as sure as that bucket, plus the second likeliest
    if it is a neighbour; a box is as sure as the mean of its sides.
    """
    regions = around((anchors[:, :2] + anchors[:, 2:]) * np.float32(0.5),
                     (anchors[:, 2:] - anchors[:, :2]) * np.float32(facts['scale_factor']))
    width, height = (regions[:, 2:] - regions[:, :2]).T / np.float32(facts['num_buckets'])
    probabilities = softmax(logits)
    likeliest = np.argsort(-probabilities, axis=-1, kind='stable')[..., :2]
    bucket = likeliest[..., :1]
    steps = bucket[..., 0].astype(np.float32) + np.float32(0.5)
    offset = np.take_along_axis(offsets, bucket, axis=-1)[..., 0]
    left, top, right, bottom = regions.T
    boxes = np.stack([left + steps[:, 0] * width - offset[:, 0] * width,
                      top + steps[:, 2] * height - offset[:, 2] * height,
                      right - steps[:, 1] * width - offset[:, 1] * width,
                      bottom - steps[:, 3] * height - offset[:, 3] * height], axis=1)
    first, second = np.moveaxis(np.take_along_axis(probabilities, likeliest, axis=-1), -1, 0)
    neighbours = np.abs(likeliest[..., 0] - likeliest[..., 1]) == 1
    confidence = (first + second * neighbours).mean(axis=1, dtype=np.float32)
    return (clipped(boxes, image_shape(facts), inset=1) if facts['clip'] else boxes), confidence
