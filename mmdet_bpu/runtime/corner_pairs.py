"""Which top-left corner belongs to which bottom-right one: CornerNet and CentripetalNet."""
from typing import NamedTuple

import numpy as np

# Sides of the region around a box's center in which CentripetalNet accepts the centers that its
# corners point at, as a share of the box's sides (Dong et al., 2020, arXiv:2003.09119); a larger
# region for boxes of more than so many px of area.
LARGE_AREA = 3500
CENTRAL_SHARE, CENTRAL_SHARE_LARGE = 1 / 2.4, 1 / 2.1


class Corner(NamedTuple):
    """Corners of one kind, all arrays over (K, ...).

    Attributes:
        points (np.ndarray): (K, 2) float32, x and y in px of the network's input.
        scores (np.ndarray): (K,) float32.
        labels (np.ndarray): (K,) int64.
        embeddings (np.ndarray, optional): (K,) float32: alike for corners of one box.
        centers (np.ndarray, optional): (K, 2): the center of its box, as the corner sees it, px.
    """
    points: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray = None
    centers: np.ndarray = None


def pair_boxes(first: Corner, second: Corner) -> np.ndarray:
    """Boxes (K, K, 4) of all pairs of a top-left and a bottom-right corner."""
    return _pairs(first.points, second.points)


def is_pair(first: Corner, second: Corner, threshold: float) -> np.ndarray:
    """Which corners make a box: (K, K), bool.

    They have one label, lie right of and below each other, and what they know of their box is at
    most ``threshold`` apart: their embeddings, or the area between the centers that they point at,
    as a share of the region in which these must lie.
    """
    boxes = pair_boxes(first, second)
    fits = (first.labels[:, None] == second.labels) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    if first.centers is None:
        distance = np.abs(first.embeddings[:, None] - second.embeddings)
    else:
        seen, central = _pairs(first.centers, second.centers), _central_regions(boxes)
        inside = (seen > np.tile(central[..., :2], 2)) & (seen < np.tile(central[..., 2:], 2))
        fits &= inside.all(-1)
        with np.errstate(divide='ignore', invalid='ignore'):  # boxes that are none
            distance = _areas(seen) / _areas(central)
    return fits & ~(distance > np.float32(threshold))


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    shape = (len(first), len(second), 2)
    return np.concatenate([np.broadcast_to(first[:, None], shape),
                           np.broadcast_to(second, shape)], axis=-1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.abs((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def _central_regions(boxes: np.ndarray) -> np.ndarray:
    share = np.where(_areas(boxes) > LARGE_AREA, np.float32(CENTRAL_SHARE_LARGE),
                     np.float32(CENTRAL_SHARE))[..., None]
    center = (boxes[..., :2] + boxes[..., 2:]) / np.float32(2)
    half = share * (boxes[..., 2:] - boxes[..., :2]) / np.float32(2)
    return np.concatenate([center - half, center + half], axis=-1)
