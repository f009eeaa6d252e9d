"""What a stock head decodes: its boxes before and after NMS, by its own ``predict_by_feat``.

Before NMS are the boxes that the head hands to mmcv's ``batched_nms``, whichever head and by
whichever road (``BaseDenseHead``, ``multiclass_nms``, heads with NMS of their own): past the head's
score threshold, its ``nms_pre`` and its other filters. A head without NMS (the DETRs, CenterNet)
has one set of boxes, which is counted as both.

Counted are boxes that mean something: a score of at least :data:`LEAST_SCORE`, and at least
:data:`LEAST_SIDE` wide and high inside the image. Every count is of the image that has fewest.
"""
import sys
from contextlib import contextmanager
from typing import Iterator, NamedTuple, Sequence

import numpy as np
import torch
from family_images import Batch, batch_of
from torch import Tensor, nn

import mmdet_bpu  # noqa: F401  (lets mmcv.ops be imported from mmcv-lite)
from mmcv.ops.nms import batched_nms
from mmdet.models.detectors.base_detr import DetectionTransformer

LEAST_SCORE = 0.05
LEAST_SIDE = 1.0  # px


class Boxes(NamedTuple):
    """Boxes of one image."""
    boxes: Tensor  # (n, 4) x1, y1, x2, y2, px of the network's input
    scores: Tensor  # (n,)
    labels: Tensor  # (n,)

    def sides(self, shape: tuple[int, int]) -> Tensor:
        """(n, 2) width and height of the part inside an image of (height, width), px."""
        height, width = shape
        limit = self.boxes.new_tensor([width, height, width, height])
        inside = torch.minimum(self.boxes.clamp(min=0), limit)
        return inside[:, 2:] - inside[:, :2]

    def meaningful(self, shape: tuple[int, int]) -> 'Boxes':
        """Those that are counted."""
        keep = (self.scores >= LEAST_SCORE) & (self.sides(shape) >= LEAST_SIDE).all(1)
        return Boxes(self.boxes[keep], self.scores[keep], self.labels[keep])


NO_BOXES = Boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))


class HeadRun:
    """A batch as far as the head, so that the head alone can run again when its weights change.

    Args:
        model (nn.Module): A stock detector with a ``bbox_head``.
        batch (Batch): Its input.
    """

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.head, self.metas = model.bbox_head, batch.metas
        self.shape = tuple(batch.inputs.shape[-2:])
        model.eval()
        with torch.no_grad():
            features = model.extract_feat(batch.inputs)
            if isinstance(model, DetectionTransformer):
                self.channel_axis = -1  # of (layers, N, queries, C)
                self.arguments = model.forward_transformer(features, batch.samples)
            else:
                self.channel_axis = 1  # of (N, C, H, W)
                self.arguments = dict(x=features)

    def outputs(self) -> tuple:
        """What the head's ``forward`` returns now, in its own nesting."""
        if 'x' in self.arguments:
            return self.head(self.arguments['x'])  # by position: heads disagree about its name
        return self.head(**self.arguments)

    def boxes(self, with_nms: bool = True) -> tuple[list[Boxes], list[Boxes]]:
        """Decode with the stock ``predict_by_feat``.

        Args:
            with_nms (bool): Run the head's NMS. Defaults to True; without, nothing is suppressed
                and only the boxes before NMS are meant.

        Returns:
            tuple[list[Boxes], list[Boxes]]: Of every image, before and after NMS.
        """
        with torch.no_grad(), watched_nms(with_nms) as offered:
            results = self.head.predict_by_feat(
                *self.outputs(), batch_img_metas=self.metas, rescale=False)
        after = [Boxes(result.bboxes, result.scores, result.labels) for result in results]
        if 'nms' not in self.head.test_cfg and 'nms_cfg' not in self.head.test_cfg:
            return after, after
        # An image of which no box is left is not handed to NMS at all.
        offered += [NO_BOXES] * (len(after) - len(offered))
        return offered, after


@contextmanager
def watched_nms(suppress: bool = True) -> Iterator[list[Boxes]]:
    """Record what mmdet hands to ``batched_nms``, in order, and optionally suppress nothing."""
    offered: list[Boxes] = []

    def watch(boxes: Tensor, scores: Tensor, idxs: Tensor, nms_cfg: dict | None,
              class_agnostic: bool = False) -> tuple[Tensor, Tensor]:
        offered.append(Boxes(boxes, scores, idxs))
        if suppress:
            return batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic)
        return torch.cat([boxes, scores[:, None]], 1), torch.arange(len(boxes))

    users = [module for name, module in list(sys.modules.items())
             if name.startswith('mmdet.') and vars(module).get('batched_nms') is batched_nms]
    for module in users:
        module.batched_nms = watch
    try:
        yield offered
    finally:
        for module in users:
            module.batched_nms = batched_nms


def count_boxes(model: nn.Module, images: Sequence[np.ndarray]) -> dict[str, int]:
    """Count the boxes that a stock float detector gives.

    Args:
        model (nn.Module): A stock detector with a ``bbox_head``.
        images (Sequence[np.ndarray]): Each (H, W, 3) uint8 BGR.

    Returns:
        dict[str, int]: ``before`` NMS, ``classes`` among them, ``after`` NMS.
    """
    run = HeadRun(model, batch_of(model, images))
    before, after = ([boxes.meaningful(run.shape) for boxes in side] for side in run.boxes())
    return dict(before=min(len(boxes.scores) for boxes in before),
                classes=min(len(boxes.labels.unique()) for boxes in before),
                after=min(len(boxes.scores) for boxes in after))
