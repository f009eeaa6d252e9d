"""What the host's CPU does to a picture before the network, for the contract in model.deploy.json.

Needs numpy, and cv2 to resize; of this package only :mod:`mmdet_bpu.runtime` and
:mod:`mmdet_bpu.errors`.
"""
from typing import Any, Dict, Union

import cv2
import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import Nv12Frame, Planes
from mmdet_bpu.runtime.camera_frame import framed_planes, plane_inputs, seen_picture
from mmdet_bpu.runtime.levels import level_table, levels_of
from mmdet_bpu.runtime.picture_check import check_picture
from mmdet_bpu.runtime.picture_frame import place

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


def picture_metas(resize, width, height):
    """What mmdet's heads ask of a picture when they turn outputs into boxes.

    Args:
        resize (dict): ``preprocessing.resize`` of the contract.
        width (int): Width of the picture, px.
        height (int): Its height, px.

    Returns:
        dict: ``ori_shape``, ``img_shape`` (boxes are clipped to it), both (height, width) in px;
        ``scale_factor`` (along the width, along the height), by which boxes are divided; and
        ``border``, what is left of the input above, below, left and right of the picture's ends.
    """
    placed = place(resize, width, height)
    whole = resize.get('clip', 'input') == 'input'
    return dict(
        ori_shape=(height, width),
        img_shape=(resize['height'], resize['width']) if whole else (placed.height, placed.width),
        scale_factor=(placed.width / width, placed.height / height),
        border=(placed.top, placed.top + placed.height, placed.left, placed.left + placed.width))


def resized(image, size, interpolation='bilinear'):
    """``image`` (height, width[, channels]) at ``size`` (width, height) px."""
    result = cv2.resize(image, tuple(size), interpolation=INTERPOLATIONS[interpolation])
    return result.reshape(*result.shape[:2], *image.shape[2:])


def picture_channels(image, color_order):
    """A picture with the channels of the network, before it is resized.

    Args:
        image (np.ndarray): (height, width) or (height, width, channels) uint8.
        color_order (str): ``preprocessing.color_order``; for ``gray`` three channels, blue first,
            become one.

    Returns:
        np.ndarray: (height, width, channels) uint8.
    """
    if color_order == 'gray' and image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image[..., None] if image.ndim == 2 else image


def network_inputs(image: Union[np.ndarray, Nv12Frame],
                   contract: Dict[str, Any]) -> Dict[str, np.ndarray]:
    """A picture, or a camera's frame, as the network's inputs by name.

    Args:
        image (np.ndarray | Nv12Frame): (height, width, 3) uint8, blue first, as ``cv2.imread``
            gives it, or :func:`mmdet_bpu.runtime.camera.nv12_frame`; a network of another number of
            channels takes pictures of that many, in their own order.
        contract (dict): Content of model.deploy.json.

    Returns:
        dict[str, np.ndarray]: Each (1, h, w, channels), in the input's own dtype.

    Raises:
        BpuError: It is no such picture, or a frame for a network that takes pictures.
    """
    if takes_planes(contract['preprocessing']):
        return plane_inputs(host_planes(image, contract['preprocessing']), contract)
    return {contract['inputs'][0]['name']: int8_image(image, contract)}


def takes_planes(stage: Dict[str, Any]) -> bool:
    """Whether the network itself converts what the camera gives.

    Args:
        stage (dict): ``preprocessing`` of the contract.
    """
    camera = stage.get('camera')
    return isinstance(camera, dict) and camera.get('by') == 'network'


def host_planes(image: Union[np.ndarray, Nv12Frame], stage: Dict[str, Any]) -> Planes:
    """Planes of a picture or a frame at the input's size.

    Args:
        image (np.ndarray | Nv12Frame): As for :func:`network_inputs`.
        stage (dict): ``preprocessing`` of the contract, with a ``camera``.

    Raises:
        BpuError: It is neither, or of other channels.
    """
    if not isinstance(image, Nv12Frame):
        gray = stage['camera']['format'] == 'gray'
        check_picture(image, 1 if gray else 3, 'gray' if gray else 'bgr')
        image = picture_channels(image, 'gray' if gray else 'bgr')
    return framed_planes(image, stage)


def refuse_frame(camera: Any, color_order: str) -> None:
    """Refuse a camera's frame where there is no camera.

    Raises:
        BpuError: There is none.
    """
    if camera is None:
        raise BpuError('an NV12 frame: expected a network whose input format is nv12, yuv444 or '
                       f'gray of a camera, found one that takes {color_order} pictures')


def int8_image(image, contract):
    """A picture as the network's input, normalised by the host.

    Args:
        image (np.ndarray): As for :func:`network_inputs`.
        contract (dict): Content of model.deploy.json.

    Returns:
        np.ndarray: (1, H, W, channels) int8.

    Raises:
        BpuError: It is no such picture.
    """
    stage, scale = contract['preprocessing'], contract['inputs'][0]['scale']
    if stage.get('camera') is not None:
        seen = seen_picture(host_planes(image, stage), stage)
        return level_table(stage, scale)[seen, np.arange(seen.shape[2])][None]
    if isinstance(image, Nv12Frame):
        refuse_frame(None, stage['color_order'])
    resize, channels = stage['resize'], len(stage['mean'])
    check_picture(image, channels, stage['color_order'])
    placed = place(resize, image.shape[1], image.shape[0])
    image = picture_channels(image, stage['color_order'])
    image = resized(image, (placed.width, placed.height), resize['interpolation'])
    if stage['color_order'] == 'rgb':
        image = image[..., ::-1]
    table = level_table(stage, scale)
    levels = np.empty((resize['height'], resize['width'], channels), np.int8)
    if resize['keep_ratio']:
        levels[:] = levels_of(np.float32(resize['pad_value'])[None], stage, scale)
    rows = slice(placed.top, placed.top + placed.height)
    levels[rows, placed.left:placed.left + placed.width] = table[image, np.arange(channels)]
    return levels[None]
