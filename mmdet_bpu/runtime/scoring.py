"""Which predictions of a level become candidates: above a score, and the best so many.

As ``filter_scores_and_topk`` of mmdet does it.
"""
from typing import Any, Dict, NamedTuple

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid, softmax
from mmdet_bpu.runtime.candidates import by_score
from mmdet_bpu.runtime.facts import INTEGER, NUMBER, one_of

SCORING = dict(
    activation=one_of('sigmoid', 'softmax', 'none'),  # softmax: the last class is background
    score_thr=NUMBER,
    nms_pre=INTEGER)

# How far below the threshold a logit may lie and still be looked at: far more than the float32
# rounding of a sigmoid, so that comparing logits first changes nothing but the time it takes.
LOGIT_MARGIN = 0.01


class Best(NamedTuple):
    """The best predictions of a level.

    Attributes:
        scores (np.ndarray): (K,) float32, the highest first.
        labels (np.ndarray): (K,) int64.
        index (np.ndarray): (K,) int64, rows of the level.
    """
    scores: np.ndarray
    labels: np.ndarray
    index: np.ndarray


def best_predictions(logits: np.ndarray, facts: Dict[str, Any]) -> Best:
    """Scores above ``score_thr``, at most ``nms_pre`` of them; of equal ones the lower row first.

    ``nms_pre`` of -1 leaves out the last one: mmdet slices with it.

    Args:
        logits (np.ndarray): (rows, classes) float32; with softmax, the background is the last.
        facts (dict): Of the contract: ``activation``, ``score_thr``, ``nms_pre``.
    """
    threshold = np.float32(facts['score_thr'])
    if facts['activation'] == 'sigmoid':
        index, labels = np.nonzero(logits > _logit(facts['score_thr']) - LOGIT_MARGIN)
        scores = sigmoid(logits[index, labels])
        above = scores > threshold
        index, labels, scores = index[above], labels[above], scores[above]
    else:
        dense = logits if facts['activation'] == 'none' else softmax(logits)[:, :-1]
        index, labels = np.nonzero(dense > threshold)
        scores = dense[index, labels]
    order = by_score(scores)[:min(facts['nms_pre'], len(scores))]
    return Best(scores[order], labels[order], index[order])


def _logit(probability: float) -> np.float32:
    """Inverse of the sigmoid; infinite outside of (0, 1)."""
    if not 0 < probability < 1:
        return np.float32(-np.inf if probability <= 0 else np.inf)
    return np.float32(np.log(probability / (1 - probability)))
