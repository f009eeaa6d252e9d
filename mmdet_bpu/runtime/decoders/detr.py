"""Queries: DETR, Conditional DETR, DAB-DETR, Deformable DETR, DINO; sigmoid or softmax scores."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.activations import sigmoid, softmax
from mmdet_bpu.runtime.box_coders import around, clipped
from mmdet_bpu.runtime.candidates import Candidates, by_score
from mmdet_bpu.runtime.facts import one_of

FACTS = dict(activation=one_of('sigmoid', 'softmax'))  # softmax: the last class is background


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree: class logits (1, queries, classes), with softmax one more for the background; boxes
    (1, queries, 4): center, width and height as fractions of the input.

    With sigmoid a query gives a candidate for every class, with softmax one for its best class;
    ``max_per_img`` of them are kept.
    """
    logits, fractions = (np.asarray(part) for part in tree)
    classes = facts['num_classes'] + (facts['activation'] == 'softmax')
    if logits.ndim != 3 or logits.shape != (1, len(logits[0]), classes) \
            or fractions.shape != (1, len(logits[0]), 4):
        raise BpuError(f'outputs of the network: expected scores (1, queries, {classes}) and boxes '
                       f'(1, queries, 4), found {logits.shape} and {fractions.shape}')
    logits, fractions = logits[0], fractions[0]
    if facts['activation'] == 'sigmoid':
        # The sigmoid keeps the order, so the best are found before it is computed.
        best = by_score(logits.ravel())[:facts['max_per_img']]
        query, labels = np.divmod(best, classes)
        scores = sigmoid(logits[query, labels])
    else:
        probabilities = softmax(logits)[:, :-1]
        query = by_score(probabilities.max(axis=1))[:facts['max_per_img']]
        labels = probabilities[query].argmax(axis=1)
        scores = probabilities[query, labels]
    height, width = facts['input_shape']
    boxes = around(fractions[query, :2], fractions[query, 2:]) * np.float32([width, height] * 2)
    return Candidates(clipped(boxes, facts['input_shape']), scores, labels)
