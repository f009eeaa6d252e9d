"""CenterNet, the one of center heat maps."""
from typing import Any, Dict, Optional, Tuple

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, too_few_positions


@register('CenterNetHead')
class CenterHeatmaps(Family):
    """CenterNet, the one of center heat maps."""
    name = 'center_heatmaps'

    def refuse_shape(self, model: nn.Module, image: Tensor) -> Optional[str]:
        """Stock decoding takes the ``topk`` highest of all positions and classes."""
        return too_few_positions(model, image, 'topk')

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Facts for :mod:`mmdet_bpu.runtime.decoders.center_heatmaps`; see there."""
        facts = common_facts('center_heatmaps', head, test_cfg, input_shape)
        # mmdet calls its post-processing without NMS; peaks are alone as it is.
        facts.update(min_bbox_size=None, nms=None, max_per_img=None)
        return dict(facts, topk=int(test_cfg.topk), kernel=int(test_cfg.local_maximum_kernel))
