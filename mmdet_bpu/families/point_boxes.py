"""RepPoints."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, point_facts, scoring_facts


@register('RepPointsHead')
class PointBoxes(Family):
    """RepPoints."""
    name = 'point_boxes'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.point_boxes`; see there."""
        return dict(common_facts('point_boxes', head, test_cfg, input_shape),
                    **scoring_facts(head, test_cfg), **point_facts(head.prior_generator))
