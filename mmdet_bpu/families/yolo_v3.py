"""YOLOv3."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts, stride_facts


@register('YOLOV3Head')
class YOLOv3(Family):
    """YOLOv3."""
    name = 'yolo_v3'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.yolo_v3`; see there."""
        if type(head.bbox_coder).__name__ != 'YOLOBBoxCoder':
            raise BpuError('bbox_head.bbox_coder: expected YOLOBBoxCoder, found '
                           f'{type(head.bbox_coder).__name__}')
        anchors = anchor_facts(head.prior_generator)
        if anchors['strides'] != stride_facts(head.featmap_strides):
            raise BpuError('bbox_head.featmap_strides: expected those of the anchor generator, '
                           f'{anchors["strides"]}, found {head.featmap_strides}')
        return dict(common_facts('yolo_v3', head, test_cfg, input_shape), activation='sigmoid',
                    score_thr=float(test_cfg.get('score_thr', 0)),
                    nms_pre=int(test_cfg.get('nms_pre', -1)),
                    conf_thr=float(test_cfg.get('conf_thr', -1)),
                    **anchors)
