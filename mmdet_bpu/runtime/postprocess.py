"""What the host's CPU does before the network, for the contract in model.deploy.json.

Needs numpy, and cv2 to resize.
"""
import cv2
import numpy as np


def int8_image(image, contract):
    """A picture as the network's input.

    Args:
        image (np.ndarray): (height, width, 3) uint8, blue first, as ``cv2.imread`` gives it.
        contract (dict): Content of model.deploy.json.

    Returns:
        np.ndarray: (1, H, W, 3) int8.
    """
    stage, scale = contract['preprocessing'], contract['inputs'][0]['scale']
    size = (stage['resize']['width'], stage['resize']['height'])
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if stage['color_order'] == 'rgb':
        image = image[..., ::-1]
    # The integer of each of the 256 values of each channel. All in float32: the order of these
    # operations is part of the contract.
    values = np.arange(256, dtype=np.float32)[:, None]
    mean, std = np.float32(stage['mean']), np.float32(stage['std'])
    levels = np.rint((values - mean) / std / np.float32(scale))
    table = np.clip(levels, -128, 127).astype(np.int8)
    return np.ascontiguousarray(table[image, np.arange(3)][None])
