"""Where the picture lies in the network's input, and boxes in px of the picture."""
from typing import Any, Dict, NamedTuple

import numpy as np

from mmdet_bpu.errors import BpuError

CORNERS = ('top_left', 'center')


class Placement(NamedTuple):
    """A resized picture inside the network's input, all in px of the input.

    Attributes:
        left (int): Columns of padding before it.
        top (int): Rows of padding above it.
        width (int): Its width.
        height (int): Its height.
    """
    left: int
    top: int
    width: int
    height: int


def place(resize: Dict[str, Any], width: int, height: int) -> Placement:
    """Where a picture comes to lie.

    Without ``keep_ratio`` it fills the input. With it, it becomes as large as fits (or stays as it
    is, where ``enlarge`` is false and it fits), its sides rounded as mmcv does, and lies in the
    ``corner``: ``top_left``, or ``center``, with one px more behind it if what is left over is odd.
    With a ``multiple`` its sides and the corner are multiples of that many px, as the planes of an
    NV12 frame ask for.

    Args:
        resize (dict): ``preprocessing.resize`` of a contract.
        width (int): Of the picture, px.
        height (int): Of the picture, px.

    Raises:
        BpuError: The corner is neither.
    """
    if not resize.get('keep_ratio'):
        return Placement(0, 0, resize['width'], resize['height'])
    if resize.get('corner') not in CORNERS:
        raise BpuError(f'contract, preprocessing.resize.corner: expected {" or ".join(CORNERS)}, '
                       f'found {resize.get("corner")!r}')
    ratio = min(resize['width'] / width, resize['height'] / height)
    if not resize.get('enlarge', True):
        ratio = min(ratio, 1.0)
    step = resize.get('multiple', 1)
    # No side of a very long picture vanishes, and none is rounded beyond the input.
    sides = [min(max(int(side * ratio / step + 0.5), 1) * step, resize[name])
             for side, name in ((width, 'width'), (height, 'height'))]
    margins = [0, 0]
    if resize['corner'] == 'center':
        margins = [(resize[name] - side) // (2 * step) * step
                   for side, name in zip(sides, ('width', 'height'))]
    return Placement(*margins, *sides)


def framed_facts(facts: Dict[str, Any], resize: Dict[str, Any],
                 placement: Placement) -> Dict[str, Any]:
    """Facts for a decoder, with what depends on the picture.

    Returns:
        dict: With ``origin``, x and y of the picture in the input, px, and, where ``resize`` clips
        to the ``picture`` and not to the ``input``, ``image_shape``: its height and width.
    """
    facts = dict(facts, origin=[placement.left, placement.top])
    if resize.get('clip', 'input') == 'picture':
        facts['image_shape'] = [placement.height, placement.width]
    return facts


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
    placed = place(contract['preprocessing']['resize'], width, height)
    origin = np.float32([placed.left, placed.top] * 2)
    return (boxes - origin) / np.float32([placed.width / width, placed.height / height] * 2)
