"""Facts about mmdet's box coders for :mod:`mmdet_bpu.runtime.box_coders`."""
import math
from typing import Any, Dict

from mmdet_bpu.errors import BpuError

# ``wh_ratio_clip`` where a head calls the coder without it (mmdet 3.3.0).
DEFAULT_RATIO_CLIP = 16 / 1000


def anchor_coder_facts(coder: Any) -> Dict[str, Any]:
    """Facts of a coder that turns anchors into boxes.

    Raises:
        BpuError: There is no decoder for it.
    """
    name = type(coder).__name__
    if name in ('DeltaXYWHBBoxCoder', 'LegacyDeltaXYWHBBoxCoder'):
        return delta_facts(coder)
    if name == 'TBLRBBoxCoder':
        factors = coder.normalizer
        factors = [factors] * 4 if isinstance(factors, (int, float)) else list(factors)
        return dict(type='tblr', normalizers=[float(factor) for factor in factors],
                    clip=bool(coder.clip_border))
    raise BpuError('bbox_head.bbox_coder: expected DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder or '
                   f'TBLRBBoxCoder, found {name}')


def delta_facts(coder: Any, ratio_clip: float = DEFAULT_RATIO_CLIP) -> Dict[str, Any]:
    """Facts of a coder of center shifts and logarithms of sizes.

    Args:
        coder (Any): ``DeltaXYWHBBoxCoder`` or ``LegacyDeltaXYWHBBoxCoder``.
        ratio_clip (float): Smallest ratio of a box's side to its anchor's. Defaults to mmdet's.
    """
    legacy = type(coder).__name__.startswith('Legacy')
    return dict(
        type='delta_xywh',
        means=[float(mean) for mean in coder.means],
        stds=[float(std) for std in coder.stds],
        max_log_ratio=abs(math.log(ratio_clip)),
        max_shift=float(coder.ctr_clamp) if getattr(coder, 'add_ctr_clamp', False) else None,
        clip=legacy or bool(coder.clip_border),
        legacy=legacy)


def distance_clip(coder: Any) -> bool:
    """Whether a ``DistancePointBBoxCoder`` clips to the image.

    Raises:
        BpuError: The coder is another one.
    """
    if type(coder).__name__ != 'DistancePointBBoxCoder':
        raise BpuError('bbox_head.bbox_coder: expected DistancePointBBoxCoder, found '
                       f'{type(coder).__name__}')
    return coder.clip_border is not False
