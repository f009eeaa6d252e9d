"""PAA, and LAD, whose student it is."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.coder_facts import anchor_coder_facts
from mmdet_bpu.families.decoding_facts import anchor_facts, common_facts


@register('LADHead', 'PAAHead')
class PAA(Family):
    """PAA, and LAD, whose student it is."""
    name = 'paa'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.paa`; see there."""
        facts = common_facts('paa', head, test_cfg, input_shape)
        facts['min_bbox_size'] = None  # its own post-processing keeps small boxes
        return dict(facts, **anchor_facts(head.prior_generator),
                    coder=anchor_coder_facts(head.bbox_coder), score_thr=float(test_cfg.score_thr),
                    nms_pre=int(test_cfg.get('nms_pre', -1)),
                    score_voting=bool(head.with_score_voting))
