"""What the host's CPU does after the network, for the contract in model.deploy.json.

Needs numpy; nothing of mmdet_bpu. Copy this file to the board, with input_stage.py.
"""
import numpy as np


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
