"""Heads whose outputs are distances in px from points."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.coder_facts import distance_clip
from mmdet_bpu.families.decoding_facts import common_facts, point_facts, scoring_facts


@register('AutoAssignHead', 'CenterNetUpdateHead', 'FCOSHead', 'NASFCOSHead', 'RTMDetHead',
          'RTMDetSepBNHead', 'VFNetHead')
class PointDistances(Family):
    """Heads whose outputs are distances in px from points."""
    name = 'point_distances'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.point_distances`; see there."""
        return dict(common_facts('point_distances', head, test_cfg, input_shape),
                    **scoring_facts(head, test_cfg), **point_facts(head.prior_generator),
                    clip=distance_clip(head.bbox_coder))
