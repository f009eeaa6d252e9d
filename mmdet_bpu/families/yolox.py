"""YOLOX."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, point_facts


@register('YOLOXHead')
class YOLOX(Family):
    """YOLOX."""
    name = 'yolox'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.yolox`; see there."""
        facts = common_facts('yolox', head, test_cfg, input_shape)
        # Its own post-processing keeps every box that NMS keeps, however small.
        facts.update(min_bbox_size=None, max_per_img=None)
        return dict(facts, **point_facts(head.prior_generator), score_thr=float(test_cfg.score_thr))
