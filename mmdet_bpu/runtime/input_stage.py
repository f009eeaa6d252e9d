"""What the host's CPU does to a picture before the network, for the contract in model.deploy.json.

Needs numpy, and cv2 to resize; of this package only :mod:`mmdet_bpu.runtime` and
:mod:`mmdet_bpu.errors`.
"""
import cv2
import numpy as np

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


def levels_of(values, stage, scale):
    """Integers of picture values, per channel: ``clamp(rhe((value - mean) / std / scale))``.

    All in float32: the order of these operations is part of the contract.

    Args:
        values (np.ndarray): (N, channels), 0 to 255.
        stage (dict): ``preprocessing`` of the contract.
        scale (float): Scale of the network's input.

    Returns:
        np.ndarray: (N, channels) int8.
    """
    mean, std = np.float32(stage['mean']), np.float32(stage['std'])
    levels = np.rint((np.float32(values) - mean) / std / np.float32(scale))
    return np.clip(levels, -128, 127).astype(np.int8)


def int8_image(image, contract):
    """A picture as the network's input.

    Args:
        image (np.ndarray): (height, width, 3) uint8, blue first, as ``cv2.imread`` gives it; a
            network of another number of channels takes pictures of that many, in their own order.
        contract (dict): Content of model.deploy.json.

    Returns:
        np.ndarray: (1, H, W, channels) int8.

    Raises:
        BpuError: It is no such picture.
    """
    stage, scale = contract['preprocessing'], contract['inputs'][0]['scale']
    resize, channels = stage['resize'], len(stage['mean'])
    check_picture(image, channels, stage['color_order'])
    placed = place(resize, image.shape[1], image.shape[0])
    image = picture_channels(image, stage['color_order'])
    image = resized(image, (placed.width, placed.height), resize['interpolation'])
    if stage['color_order'] == 'rgb':
        image = image[..., ::-1]
    # The integer of each of the 256 values of each channel.
    table = levels_of(np.arange(256)[:, None].repeat(channels, 1), stage, scale)
    levels = np.empty((resize['height'], resize['width'], channels), np.int8)
    if resize['keep_ratio']:
        levels[:] = levels_of(np.float32(resize['pad_value'])[None], stage, scale)
    rows = slice(placed.top, placed.top + placed.height)
    levels[rows, placed.left:placed.left + placed.width] = table[image, np.arange(channels)]
    return levels[None]
