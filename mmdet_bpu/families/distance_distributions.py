"""Heads whose outputs are distributions of distances."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.coder_facts import distance_clip
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts, scoring_facts


@register('GFLHead', 'LDHead')
class DistanceDistributions(Family):
    """Heads whose outputs are distributions of distances."""
    name = 'distance_distributions'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.distance_distributions`; see there."""
        return dict(common_facts('distance_distributions', head, test_cfg, input_shape),
                    **scoring_facts(head, test_cfg), **anchor_facts(head.prior_generator),
                    reg_max=int(head.reg_max), clip=distance_clip(head.bbox_coder))
