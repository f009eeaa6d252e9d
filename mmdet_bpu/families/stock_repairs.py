"""What stock mmdet 3.3.0 lacks to decode with its own heads.

It is given to the class, only if it is absent. Every row is a fact about mmdet; a version that mends it is left as it is.
"""
from typing import Any, List, NamedTuple

from mmdet.registry import MODELS


class Repair(NamedTuple):
    """An attribute that a class of mmdet lacks."""
    cls: str
    attribute: str
    value: Any
    reason: str


REPAIRS = (
    Repair('SSDHead', 'loss_cls', None,
           'BaseDenseHead._predict_by_feat_single asks loss_cls whether it has class channels of '
           'its own; SSDHead builds no loss_cls, so predicting raises'),
)


def apply_repairs() -> List[Repair]:
    """Give classes what they lack.

    Returns:
        list[Repair]: What was absent and is given now; empty when called again.
    """
    given = []
    for repair in REPAIRS:
        cls = MODELS.get(repair.cls)
        if cls is not None and not hasattr(cls, repair.attribute):
            setattr(cls, repair.attribute, repair.value)
            given.append(repair)
    return given
