"""Where the picture lies in the network's input, and boxes in px of the picture."""
from typing import Any, Dict, NamedTuple

import numpy as np

from mmdet_bpu.errors import BpuError


class Frame(NamedTuple):
    """A resized picture inside the network's input.

    Attributes:
        width (int): Of the resized picture, px of the network's input.
        height (int): Likewise.
        left (int): What lies left of it, px of the network's input.
        top (int): What lies above it.
    """
    width: int
    height: int
    left: int
    top: int


def frame_of(resize: Dict[str, Any], width: int, height: int) -> Frame:
    """Where a picture comes to lie.

    Without ``keep_ratio`` it fills the input. With it, it becomes as large as fits, its sides
    rounded as mmcv does, and lies where ``pad.corner`` says: in the ``top-left`` corner, or in the
    ``center`` (one px more on the right or below if what is left over is odd).

    Args:
        resize (dict): ``preprocessing.resize`` of a contract.
        width (int): Of the picture, px.
        height (int): Of the picture, px.

    Raises:
        BpuError: The corner is neither.
    """
    if not resize.get('keep_ratio'):
        return Frame(resize['width'], resize['height'], 0, 0)
    ratio = min(resize['width'] / width, resize['height'] / height)
    fitted = max(int(width * ratio + 0.5), 1), max(int(height * ratio + 0.5), 1)
    corner = (resize.get('pad') or {}).get('corner')
    if corner == 'top-left':
        return Frame(*fitted, 0, 0)
    if corner == 'center':
        return Frame(*fitted, (resize['width'] - fitted[0]) // 2,
                     (resize['height'] - fitted[1]) // 2)
    raise BpuError('contract, preprocessing.resize.pad.corner: expected top-left or center, found '
                   f'{corner!r}')


def to_picture(boxes: np.ndarray, contract: Dict[str, Any], width: int, height: int) -> np.ndarray:
    """Boxes in px of a picture.

    Args:
        boxes (np.ndarray): (N, 4) float32, x1, y1, x2, y2 in px of the network's input.
        contract (dict): Content of model.deploy.json.
        width (int): Of the picture before it was resized, px.
        height (int): Its height, px.

    Returns:
        np.ndarray: (N, 4) float32.
    """
    frame = frame_of(contract['preprocessing']['resize'], width, height)
    origin = np.float32([frame.left, frame.top] * 2)
    return (boxes - origin) / np.float32([frame.width / width, frame.height / height] * 2)
