"""Queries: DETR, Conditional DETR, DAB-DETR, Deformable DETR, DINO; sigmoid or softmax scores."""
from typing import Any, Dict, List, Tuple

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.activations import sigmoid, softmax
from mmdet_bpu.runtime.box_coders import around, clipped
from mmdet_bpu.runtime.candidates import Candidates, by_score
from mmdet_bpu.runtime.dense_levels import score_channels
from mmdet_bpu.runtime.facts import image_shape, one_of

FACTS = dict(activation=one_of('sigmoid', 'softmax'))  # softmax: the last class is background


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: class logits (1, queries, classes), with softmax one more for the background; boxes
    (1, queries, 4): center, width and height as fractions of the input.

    With sigmoid a query gives a candidate for every class, with softmax one for its best class;
    ``max_per_img`` of them are kept; if that is None, as many as there are queries.
    """
    logits, fractions = _queries(tree, score_channels(facts))
    count = facts['max_per_img'] or len(logits)
    if facts['activation'] == 'sigmoid':
        # The sigmoid keeps the order, so the best are found before it is computed.
        best = by_score(logits.ravel())[:count]
        query, labels = np.divmod(best, logits.shape[1])
        scores = sigmoid(logits[query, labels])
    else:
        probabilities = softmax(logits)[:, :-1]
        query = by_score(probabilities.max(axis=1))[:count]
        labels = probabilities[query].argmax(axis=1)
        scores = probabilities[query, labels]
    height, width = image_shape(facts)
    boxes = around(fractions[query, :2], fractions[query, 2:]) * np.float32([width, height] * 2)
    return Candidates(clipped(boxes, image_shape(facts)), scores, labels)


def _queries(tree: List[Any], channels: int) -> Tuple[np.ndarray, np.ndarray]:
    """Logits (queries, channels) and boxes (queries, 4)."""
    shapes = [part.shape if isinstance(part, np.ndarray) else 'a list' for part in tree]
    queries = shapes[0][1:2] if len(tree) == 2 else ()
    if shapes != [(1, *queries, channels), (1, *queries, 4)] or not queries:
        raise BpuError(f'outputs of the network: expected scores (1, queries, {channels}) and '
                       f'boxes (1, queries, 4), found {shapes}')
    return tree[0][0], tree[1][0]
