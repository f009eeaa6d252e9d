"""SABL's RetinaNet."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts, scoring_facts


@register('SABLRetinaHead')
class SideBuckets(Family):
    """SABL's RetinaNet."""
    name = 'side_buckets'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.side_buckets`; see there."""
        coder = head.bbox_coder
        return dict(common_facts('side_buckets', head, test_cfg, input_shape),
                    **scoring_facts(head, test_cfg), **anchor_facts(head.square_anchor_generator),
                    num_buckets=int(coder.num_buckets), scale_factor=float(coder.scale_factor),
                    clip=bool(coder.clip_border))
