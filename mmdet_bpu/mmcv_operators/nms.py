"""Non-maximum suppression, equal to the compiled CPU operator of mmcv."""
import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.mmcv_operators.overlap import box_columns, pairwise_iou, require_float32

# Boxes that are decided together, and boxes that they are compared with at a time: large enough
# that calling torch costs little, small enough (1 MB a matrix) to stay in a processor's cache.
BLOCK = 128
STRIP = 2048


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that no better box suppresses.

    In descending order of scores, a box is kept unless its IoU with one kept before it exceeds the
    threshold. Equal scores stand in the order that ``torch.sort`` gives them, because the compiled
    operator calls it too; that sort is not stable, and its order differs between processors. On
    every device the IoU is the CPU's quotient (mmcv's CUDA kernel multiplies by the union instead).

    Args:
        boxes (Tensor): (N, 4), float32, px, corners x1, y1, x2, y2.
        scores (Tensor): (N, ).
        iou_threshold (float): Rounded to float32, as by the compiled operator.
        offset (int): 1 where x2 and y2 are the last pixel inside a box, else 0.

    Returns:
        Tensor: (K, ), int64, on the device of ``boxes``, best score first.

    Raises:
        BpuError: The boxes are not float32.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    require_float32('nms', boxes=boxes)
    threshold = float(np.float32(iou_threshold))
    order = scores.detach().sort(0, descending=True)[1]
    columns, left, kept = box_columns(boxes[order], offset), order, []
    while left.numel():
        block, rest = columns[:, :BLOCK], columns[:, BLOCK:]
        winners = _unsuppressed(pairwise_iou(block, block, offset) > threshold)
        kept.append(left[:BLOCK][winners])
        block = block[:, winners]
        survivors = torch.cat([~(pairwise_iou(block, strip, offset) > threshold).any(0)
                               for strip in rest.split(STRIP, dim=1)])
        columns, left = rest[:, survivors], left[BLOCK:][survivors]
    return torch.cat(kept)


def _unsuppressed(overlaps: Tensor) -> Tensor:
    """Greedy choice among boxes in descending order of scores.

    A choice that repeats itself when every box asks whether a chosen one before it overlaps is the
    greedy one. Each repetition settles at least one more box, so at most n + 1 are needed; real
    boxes need a handful.

    Args:
        overlaps (Tensor): (n, n), bool; symmetric, of which the part above the diagonal is read.

    Returns:
        Tensor: (n, ), bool.
    """
    suppresses = overlaps.triu(1)
    chosen = torch.ones_like(suppresses[0])
    while True:
        again = ~(suppresses & chosen[:, None]).any(0)
        if torch.equal(again, chosen):
            return chosen
        chosen = again
