"""What the host's CPU does before and after the network, for the contract in model.deploy.json.

Needs numpy, and cv2 to resize; nothing of mmdet_bpu. Copy this file to the board.
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


def detections(outputs, contract, width, height):
    """Integers of the network as boxes in the picture.

    Args:
        outputs (dict): Name to integers: ``cls_scores`` (1, queries, classes) and ``bbox_preds``
            (1, queries, 4), which are cx, cy, w, h as fractions of the picture.
        contract (dict): Content of model.deploy.json.
        width (int): Width of the picture before it was resized, px.
        height (int): Its height, px.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: Boxes (N, 4) float32 as x1, y1, x2, y2 in px,
        scores (N,) float32, labels (N,) int64; the best score first.
    """
    scales = {entry['name']: np.float32(entry['scale']) for entry in contract['outputs']}
    logits = outputs['cls_scores'][0].astype(np.float32) * scales['cls_scores']
    # The sigmoid keeps the order, so the best are found before it is computed.
    best = np.argsort(-logits, axis=None, kind='stable')
    best = best[:contract['postprocessing']['max_per_img']]
    query, labels = np.divmod(best, logits.shape[1])
    scores = 1 / (1 + np.exp(-np.clip(logits.ravel()[best], -80, 80)))
    cx, cy, w, h = (outputs['bbox_preds'][0][query].astype(np.float32) * scales['bbox_preds']).T
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
    boxes = np.clip(boxes, 0, 1) * np.float32([width, height, width, height])
    return boxes, scores, labels
