"""Corner heads on an hourglass (CornerNet, CentripetalNet)."""
from typing import Any, List

from mmdet_bpu.families.base import Family, register


@register('CornerHead')
class Corners(Family):
    """The head gives a map per hourglass of the stack, and its decoding reads the last."""
    name = 'corners'

    def deployed(self, outputs: Any) -> List[Any]:
        """Each output a list of one map."""
        return [maps[-1:] for maps in outputs]
