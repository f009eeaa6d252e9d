"""Soft non-maximum suppression (Bodla et al., 2017) as the compiled operator of mmcv does it."""
import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.mmcv_operators.overlap import box_columns, pairwise_iou, require_float32

NAIVE, LINEAR, GAUSSIAN = range(3)  # as mmcv numbers its methods


@np.errstate(divide='ignore', invalid='ignore', over='ignore', under='ignore')
def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Lower the score of a box for every better one that it overlaps; drop those that fall low.

    Step by step, the best of the boxes left is taken (of equal ones the first) and each of the
    others gets its score multiplied by

        naive      0 if IoU >= iou_threshold else 1
        linear     1 - IoU if IoU >= iou_threshold else 1
        gaussian   exp(-IoU * IoU / sigma)

    in float32, and leaves for good where the product is below ``min_score``. Boxes change places
    in memory as in the compiled operator, since places decide between equal scores. The
    exponential is rounded once, from float64; the C library's, which the compiled operator calls,
    may be one unit in the last place off.

    Args:
        boxes (Tensor): (N, 4), float32, px, corners x1, y1, x2, y2.
        scores (Tensor): (N, ), float32.
        dets (Tensor): (N, 5), float32, written to: the first K rows become the corners and lowered
            scores of the boxes kept, in the order they were taken.
        iou_threshold (float): Of the naive and the linear method.
        sigma (float): Of the gaussian method.
        min_score (float): The lowest score of a box that stays. The best box always does.
        method (int): :data:`NAIVE`, :data:`LINEAR` or :data:`GAUSSIAN`.
        offset (int): 1 where x2 and y2 are the last pixel inside a box, else 0.

    Returns:
        Tensor: (K, ), int64, indices into ``boxes``, in the order of ``dets``, on the device of
            ``boxes``. The arithmetic is done on the CPU, where mmcv asks for it.

    Raises:
        BpuError: A tensor is not float32.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    require_float32('softnms', boxes=boxes, scores=scores, dets=dets)
    assert method in (NAIVE, LINEAR, GAUSSIAN), method
    factors = np.float32([iou_threshold, sigma])
    columns = box_columns(boxes, offset).cpu().numpy()
    left = scores.detach().cpu().numpy().copy()
    places = np.arange(len(left))
    taken, rows = [], []
    while len(places):
        best = _first_maximum(left)
        chosen = columns[:, best:best + 1].copy()
        taken.append(places[best])
        rows.append((*chosen[:4, 0], left[best]))
        # The first box moves to the place of the taken one.
        for state in (columns, left, places):
            state[..., best] = state[..., 0]
        columns, left, places = columns[:, 1:], left[1:], places[1:]
        left *= _weights(pairwise_iou(chosen, columns, offset)[0], method, *factors)
        low = left < np.float32(min_score)
        if low.any():
            stay = _compaction(low)
            columns, left, places = columns[:, stay], left[stay], places[stay]
    dets[:len(rows)] = torch.tensor(np.array(rows), device=dets.device)
    return torch.tensor(np.array(taken), device=boxes.device)


def _weights(iou: np.ndarray, method: int, iou_threshold: np.float32,
             sigma: np.float32) -> np.ndarray:
    """Factors of the scores, (N, ), float32."""
    if method == GAUSSIAN:
        return np.exp((-(iou * iou) / sigma).astype(np.float64)).astype(np.float32)
    lowered = 1 - iou if method == LINEAR else np.float32(0)
    return np.where(iou >= iou_threshold, lowered, np.float32(1))


def _first_maximum(scores: np.ndarray) -> int:
    """Place of the greatest score, the first of equal ones, as a scan with ``<`` finds it.

    To such a scan NaN is no maximum, unless the scan starts at it.
    """
    best = int(scores.argmax())  # of the first NaN, if there is one
    if best and np.isnan(scores[best]):
        best = int(np.where(np.isnan(scores), np.float32(-np.inf), scores).argmax())
    return best


def _compaction(low: np.ndarray) -> np.ndarray:
    """Which box stands at each place when the low ones are gone.

    Every low box, from the first, is replaced by the last box that is not low and stands behind it.

    Args:
        low (np.ndarray): (N, ), bool.

    Returns:
        np.ndarray: (N - number of low ones, ), int64.
    """
    stay = np.arange(len(low) - np.count_nonzero(low))
    stay[low[:len(stay)]] = len(stay) + np.flatnonzero(~low[len(stay):])[::-1]
    return stay
