"""TOOD, whose network gives probabilities and boxes."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, scoring_facts, stride_facts


@register('TOODHead')
class DecodedBoxes(Family):
    """TOOD, whose network gives probabilities and boxes."""
    name = 'decoded_boxes'

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.decoded_boxes`; see there."""
        return dict(common_facts('decoded_boxes', head, test_cfg, input_shape),
                    **dict(scoring_facts(head, test_cfg), activation='none'),
                    strides=stride_facts(head.prior_generator.strides))
