"""From what a network regresses to boxes x1, y1, x2, y2 in px of its input; all float32.

The formulas are those of mmdet's coders of the same names.
"""
from typing import Any, Dict, Sequence

import numpy as np

from mmdet_bpu.runtime.facts import FLAG, Kind, NUMBER, numbers, one_of, optional, table


def clipped(boxes: np.ndarray, shape: Sequence[int], inset: int = 0) -> np.ndarray:
    """Boxes (K, 4) inside an image of (height, width) px, its far edges moved in by ``inset``."""
    height, width = shape
    limits = np.float32([width - inset, height - inset] * 2)
    return np.clip(boxes, np.float32(0), limits)


def around(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes (K, 4) of centers (K, 2) and sizes (K, 2)."""
    half = sizes * np.float32(0.5)
    return np.concatenate([centers - half, centers + half], axis=1)


def delta_boxes(anchors: np.ndarray, deltas: np.ndarray, coder: Dict[str, Any],
                shape: Sequence[int]) -> np.ndarray:
    """Anchors moved by dx, dy of their size and scaled by exp(dw), exp(dh).

    ``coder`` has ``means`` and ``stds`` (the real delta is delta x std + mean), ``max_log_ratio``
    (bound of dw and dh), ``max_shift`` (bound of the movement in px, or None; with it, small sizes
    have no bound), ``clip`` and ``legacy`` (MMDetection 1.x: an anchor's size counts its last
    pixel, and boxes end inside the last pixel of the image).

    Args:
        anchors (np.ndarray): (K, 4), px.
        deltas (np.ndarray): (K, 4).
        coder (dict): See above.
        shape (list): Height and width of the network's input, px.
    """
    deltas = deltas * np.float32(coder['stds']) + np.float32(coder['means'])
    extra = 1 if coder['legacy'] else 0
    centers = (anchors[:, :2] + anchors[:, 2:]) * np.float32(0.5)
    sizes = anchors[:, 2:] - anchors[:, :2] + np.float32(extra)
    shift, growth, bound = sizes * deltas[:, :2], deltas[:, 2:], np.float32(coder['max_log_ratio'])
    if coder['max_shift'] is None:
        growth = np.clip(growth, -bound, bound)
    else:
        shift = np.clip(shift, -np.float32(coder['max_shift']), np.float32(coder['max_shift']))
        growth = np.minimum(growth, bound)
    boxes = around(centers + shift, sizes * np.exp(growth))
    return clipped(boxes, shape, extra) if coder['clip'] else boxes


def tblr_boxes(anchors: np.ndarray, distances: np.ndarray, coder: Dict[str, Any],
               shape: Sequence[int]) -> np.ndarray:
    """Distances from an anchor's center to top, bottom, left and right, in units of its size.

    ``coder`` has ``normalizers``, four factors of the distances, and ``clip``.
    """
    distances = distances * np.float32(coder['normalizers'])
    centers = (anchors[:, :2] + anchors[:, 2:]) / np.float32(2)
    width, height = (anchors[:, 2:] - anchors[:, :2]).T
    top, bottom, left, right = distances.T
    x, y = centers.T
    boxes = np.stack([x - width * left, y - height * top, x + width * right, y + height * bottom],
                     axis=1)
    return clipped(boxes, shape) if coder['clip'] else boxes


def distance_boxes(points: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Boxes from points (K, 2) and distances (K, 4) to left, top, right, bottom, all in px."""
    return np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)


ANCHOR_CODERS = dict(delta_xywh=delta_boxes, tblr=tblr_boxes)

DELTA_CODER = table(type=one_of('delta_xywh'), means=numbers(4), stds=numbers(4),
                    max_log_ratio=NUMBER, max_shift=optional(NUMBER), clip=FLAG, legacy=FLAG)
TBLR_CODER = table(type=one_of('tblr'), normalizers=numbers(4), clip=FLAG)
ANCHOR_CODER = Kind(f'{DELTA_CODER.words}, or {TBLR_CODER.words}',
                    lambda value: DELTA_CODER.fits(value) or TBLR_CODER.fits(value))


def anchor_boxes(anchors: np.ndarray, regressed: np.ndarray, coder: Dict[str, Any],
                 shape: Sequence[int]) -> np.ndarray:
    """Boxes (K, 4) of anchors (K, 4) and what was regressed (K, 4), by the coder's ``type``."""
    return ANCHOR_CODERS[coder['type']](anchors, regressed, coder, shape)
