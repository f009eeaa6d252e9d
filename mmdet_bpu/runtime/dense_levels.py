"""What all dense heads share: a pyramid of maps becomes rows, rows become candidates."""
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.candidates import Candidates, concatenated
from mmdet_bpu.runtime.scoring import best_predictions

# (level, rows of the level (K,) int64, cells in a row, what was regressed there (K, C)) -> boxes
BoxesOf = Callable[[int, np.ndarray, int, np.ndarray], np.ndarray]


def rows_of(level: np.ndarray, channels: int) -> np.ndarray:
    """A map as one row per prediction: row by row, cell by cell, prior by prior.

    Args:
        level (np.ndarray): (1, priors x channels, H, W).
        channels (int): Of one prediction.

    Returns:
        np.ndarray: (H x W x priors, channels).

    Raises:
        BpuError: The map's channels are not a multiple of ``channels``.
    """
    if level.ndim != 4 or level.shape[0] != 1 or level.shape[1] % channels:
        raise BpuError(f'outputs of the network: expected maps (1, priors x {channels}, H, W), '
                       f'found {level.shape}')
    return level[0].transpose(1, 2, 0).reshape(-1, channels)


def score_channels(facts: Dict[str, Any]) -> int:
    """How many logits a prediction has: the classes, and with softmax the background."""
    return facts['num_classes'] + (facts['activation'] == 'softmax')


def check_levels(tree: List[Any], levels: int, parts: Sequence[int]) -> None:
    """Check that a head has as many outputs as it should, and each of them a map for each level.

    Raises:
        BpuError: It is not so.
    """
    found = [len(part) if isinstance(part, list) else 'no list' for part in tree]
    if len(tree) not in parts or any(length != levels for length in found):
        raise BpuError(f'outputs of the network: expected {" or ".join(map(str, parts))} lists of '
                       f'{levels} maps, found lists of {found}')


def dense_candidates(tree: List[Any], facts: Dict[str, Any], levels: int, box_channels: int,
                     boxes_of: BoxesOf) -> Candidates:
    """Candidates of all levels, one level after the other, the best of each first.

    Args:
        tree (list): Scores per level, boxes per level and, if the head has them, score factors
            per level (centerness, IoU), whose sigmoid multiplies the scores once they are chosen.
        facts (dict): Of the contract.
        levels (int): How many there are.
        box_channels (int): What is regressed for one box.
        boxes_of (Callable): See :data:`BoxesOf`.

    Raises:
        BpuError: The maps are not those of such a head.
    """
    check_levels(tree, levels, parts=[2, 3])
    parts = []
    for level in range(levels):
        logits, regressed = tree[0][level], tree[1][level]
        rows = aligned_rows([logits, regressed, *(part[level] for part in tree[2:3])],
                            [score_channels(facts), box_channels, 1])
        best = best_predictions(rows[0], facts)
        scores = best.scores
        if len(rows) == 3:
            scores = scores * sigmoid(rows[2][best.index, 0])
        boxes = boxes_of(level, best.index, logits.shape[3], rows[1][best.index])
        parts.append(Candidates(boxes, scores, best.labels))
    return concatenated(parts)


def aligned_rows(maps: List[np.ndarray], channels: List[int]) -> List[np.ndarray]:
    """Maps of one level as rows, see :func:`rows_of`.

    Raises:
        BpuError: They have different numbers of predictions.
    """
    rows = [rows_of(level, count) for level, count in zip(maps, channels)]
    if len({len(part) for part in rows}) != 1:
        raise BpuError('outputs of the network: expected the same predictions in each map of a '
                       f'level, found {[level.shape for level in maps]}')
    return rows
