"""Heads that move and scale anchors."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.coder_facts import anchor_coder_facts
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts, scoring_facts


@register('ATSSHead', 'AnchorHead', 'DDODHead', 'FSAFHead', 'FreeAnchorRetinaHead',
          'PISARetinaHead', 'PISASSDHead', 'RetinaHead', 'RetinaSepBNHead', 'SSDHead', 'YOLOFHead')
class AnchorDeltas(Family):
    """Heads that move and scale anchors."""
    name = 'anchor_deltas'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.anchor_deltas`; see there."""
        return dict(common_facts('anchor_deltas', head, test_cfg, input_shape),
                    **scoring_facts(head, test_cfg), **anchor_facts(head.prior_generator),
                    coder=anchor_coder_facts(head.bbox_coder))
