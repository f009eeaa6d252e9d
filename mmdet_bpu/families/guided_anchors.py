"""Guided anchors."""
from typing import Any, Dict, Optional, Tuple

from mmengine.config import Config, ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.coder_facts import delta_facts
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts, scoring_facts


@register('GARetinaHead', 'GuidedAnchorHead')
class GuidedAnchors(Family):
    """Guided anchors."""
    name = 'guided_anchors'

    def refuse(self, model: nn.Module, cfg: Config) -> Optional[str]:
        return (f'{type(model.bbox_head).__name__} cannot be deployed: its masked convolutions '
                'compute where the image says, and a network here has fixed shapes')

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.guided_anchors`; see there."""
        facts = common_facts('guided_anchors', head, test_cfg, input_shape)
        facts['min_bbox_size'] = None  # its own post-processing keeps small boxes
        # Anchors are decoded without a bound to their shape, and where they come to lie.
        anchor_coder = dict(delta_facts(head.anchor_coder, ratio_clip=1e-6), clip=False)
        return dict(facts, **scoring_facts(head, test_cfg),
                    **anchor_facts(head.square_anchor_generator),
                    coder=delta_facts(head.bbox_coder), anchor_coder=anchor_coder,
                    loc_filter_thr=float(head.loc_filter_thr))
