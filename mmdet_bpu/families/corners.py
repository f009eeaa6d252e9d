"""CornerNet and CentripetalNet."""
from typing import Any, Dict, List, Optional, Tuple

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, too_few_positions

PAIRS = 1000  # ``num_dets`` of CornerHead._decode_heatmap, which no setting reaches


@register('CentripetalHead', 'CornerHead')
class Corners(Family):
    """The head gives a map per hourglass of the stack, and its decoding reads the last."""
    name = 'corners'

    def deployed(self, outputs: Any) -> List[Any]:
        """Each output a list of one map."""
        return [maps[-1:] for maps in outputs]

    def refuse_shape(self, model: nn.Module, image: Tensor) -> Optional[str]:
        """Stock decoding takes the ``corner_topk`` highest of all positions and classes."""
        return too_few_positions(model, image, 'corner_topk')

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.corners`; see there."""
        facts = common_facts('corners', head, test_cfg, input_shape)
        facts['min_bbox_size'] = None  # its own post-processing keeps small boxes
        return dict(facts, corner_topk=int(test_cfg.corner_topk),
                    kernel=int(test_cfg.local_maximum_kernel),
                    distance_threshold=float(test_cfg.distance_threshold), candidates=PAIRS,
                    centripetal=hasattr(head, 'tl_centripetal_shift'))
