"""A network's outputs to boxes, by the stock head of the detector that it was made from."""
from typing import Mapping

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from mmdet_bpu.analysis.pictures import Detections
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import Tree


class HeadDecoding:
    """Decodes outputs of one image.

    Args:
        detector (nn.Module): Its head and family decode.
        tree (Tree): Nesting of the outputs.
    """

    def __init__(self, detector: nn.Module, tree: Tree) -> None:
        self.family, self.head, self.tree = FAMILIES.of(detector), detector.bbox_head, tree

    @torch.no_grad()
    def detections(self, outputs: Mapping[str, Tensor], metainfo: dict) -> Detections:
        """Boxes in px of the original image, the best score first.

        Args:
            outputs (Mapping[str, Tensor]): float32 outputs by name, of one image.
            metainfo (dict): Of the image's data sample.
        """
        arguments = self.family.restore(self.tree, outputs)
        found = self.family.predict(self.head, arguments, [metainfo])[0]
        order = torch.argsort(found.scores, descending=True, stable=True)
        boxes = get_box_tensor(found.bboxes)[order]
        return Detections(*(part.cpu().numpy() for part in (
            boxes, found.scores[order], found.labels[order])))
