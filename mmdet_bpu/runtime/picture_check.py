"""Whether an array is a picture that a network takes."""
from typing import Any, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError

COLORS = 3


def check_picture(image: Any, channels: int, color_order: str) -> None:
    """Refuse what is no picture, before anything is computed from it.

    Args:
        image (Any): What was given.
        channels (int): Of the network's input.
        color_order (str): ``preprocessing.color_order``; a gray network takes a picture in colours
            too, and makes it gray.

    Raises:
        BpuError: It is no uint8 array of (height, width, channels), or it is empty.
    """
    taken: Sequence[int] = (1, COLORS) if color_order == 'gray' else (channels, )
    expected = f'a picture as a uint8 array (height, width, {" or ".join(map(str, taken))})'
    if not isinstance(image, np.ndarray):
        raise BpuError(f'picture: expected {expected}, found {type(image).__name__}')
    found = f'an array of {image.dtype} {image.shape}'
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise BpuError(f'picture: expected {expected}, found {found}')
    count = 1 if image.ndim == 2 else image.shape[2]
    if count not in taken:
        raise BpuError(f'picture: expected {expected}: a picture of '
                       f'{" or ".join(map(str, taken))} channels, found {count}')
