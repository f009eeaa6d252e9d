"""Heads over queries."""
from typing import Any, Dict, Tuple

from mmengine.config import ConfigDict
from torch import nn

from mmdet_bpu.families.decoding_facts import common_facts

HEADS = ('ConditionalDETRHead', 'DABDETRHead', 'DETRHead', 'DINOHead', 'DeformableDETRHead')


def contract(head: nn.Module, test_cfg: ConfigDict, input_shape: Tuple[int, int]) -> Dict[str, Any]:
    """Facts for :mod:`mmdet_bpu.runtime.decoders.detr`; see there."""
    facts = common_facts('detr', head, test_cfg, input_shape)
    facts.update(min_bbox_size=None, nms=None)
    return dict(facts, activation='sigmoid' if head.loss_cls.use_sigmoid else 'softmax')
