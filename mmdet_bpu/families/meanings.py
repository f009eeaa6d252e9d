"""What a head's outputs mean to a loss that compares two of them."""
from enum import Enum

from torch import nn


class Meaning(str, Enum):
    """Of all values of one output."""

    SIGMOID = 'sigmoid'  # logits of classes that exclude nothing
    SOFTMAX = 'softmax'  # logits of classes, the last of which is the background
    PRESENCE = 'presence'  # one logit a position: whether, or how well, an object is there
    BOXES = 'boxes'  # what describes a box, in the head's own coding
    VALUES = 'values'  # anything else


# Names that ``predict_by_feat`` of mmdet's heads has for them.
MEANINGS = dict(
    objectnesses=Meaning.PRESENCE, centernesses=Meaning.PRESENCE, score_factors=Meaning.PRESENCE,
    iou_preds=Meaning.PRESENCE, bbox_preds=Meaning.BOXES)


def meaning_of(name: str, head: nn.Module) -> Meaning:
    """What the outermost output of that name means."""
    loss = getattr(head, 'loss_cls', None)
    if name == 'cls_scores' and loss is not None and hasattr(head, 'cls_out_channels'):
        sigmoid = getattr(head, 'use_sigmoid_cls', getattr(loss, 'use_sigmoid', True))
        return Meaning.SIGMOID if sigmoid else Meaning.SOFTMAX
    return MEANINGS.get(name, Meaning.VALUES)
