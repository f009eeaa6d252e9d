"""What all dense heads share: a pyramid of maps becomes rows, rows become candidates."""
from typing import Any, Callable, Dict, List

import numpy as np

from mmdet_bpu.runtime.activations import sigmoid
from mmdet_bpu.runtime.candidates import Candidates, concatenated
from mmdet_bpu.runtime.outputs import check_levels, check_maps
from mmdet_bpu.runtime.scoring import best_predictions

# (level, rows of the level (K,) int64, cells in a row, what was regressed there (K, C)) -> boxes
BoxesOf = Callable[[int, np.ndarray, int, np.ndarray], np.ndarray]


def rows_of(maps: List[np.ndarray], priors: int, channels: List[int]) -> List[np.ndarray]:
    """Maps of one level as one row per prediction: row by row, cell by cell, prior by prior.

    Args:
        maps (list[np.ndarray]): Each (1, priors x channels, H, W).
        priors (int): Anchors or points of a cell.
        channels (list[int]): Of one prediction in each map.

    Returns:
        list[np.ndarray]: Each (H x W x priors, channels).

    Raises:
        BpuError: The maps are of other shapes.
    """
    check_maps(maps, [priors * count for count in channels[:len(maps)]])
    return [level[0].transpose(1, 2, 0).reshape(-1, count) for level, count in zip(maps, channels)]


def score_channels(facts: Dict[str, Any]) -> int:
    """How many logits a prediction has: the classes, and with softmax the background."""
    return facts['num_classes'] + (facts['activation'] == 'softmax')


def dense_candidates(tree: List[Any], facts: Dict[str, Any], priors: List[int],
                     box_channels: int, boxes_of: BoxesOf) -> Candidates:
    """Candidates of all levels, one level after the other, the best of each first.

    Args:
        tree (list): Scores per level, boxes per level and, if the head has them, score factors
            per level (centerness, IoU), whose sigmoid multiplies the scores once they are chosen.
        facts (dict): Of the contract.
        priors (list[int]): Anchors or points of a cell, for each level.
        box_channels (int): What is regressed for one box.
        boxes_of (Callable): See :data:`BoxesOf`.

    Raises:
        BpuError: The maps are not those of such a head.
    """
    check_levels(tree, len(priors), parts=[2, 3])
    parts = []
    for level, count in enumerate(priors):
        maps = [part[level] for part in tree]
        rows = rows_of(maps, count, [score_channels(facts), box_channels, 1])
        best = best_predictions(rows[0], facts)
        scores = best.scores
        if len(rows) == 3:
            scores = scores * sigmoid(rows[2][best.index, 0])
        boxes = boxes_of(level, best.index, maps[0].shape[3], rows[1][best.index])
        parts.append(Candidates(boxes, scores, best.labels))
    return concatenated(parts)
