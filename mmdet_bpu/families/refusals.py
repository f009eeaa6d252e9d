"""Detectors that cannot be deployed, by the names of their classes and heads, and why.

A derived class is refused with its base, unless a family is registered for a class nearer to it.
"""
from typing import Any, Dict, Iterator, Mapping, Optional

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.config_reading import class_of
from mmdet_bpu.families.refused_heads import MASKS, REASONS, TEXT

TEACHER = 'it is a teacher with its student; give the config of the detector that shall be deployed'

DETECTORS: Dict[str, str] = {
    'TwoStageDetector': 'it is a two-stage detector: NMS and pooling of its proposals lie between '
    'its networks, and one network can be deployed',
    'TwoStagePanopticSegmentor': 'it segments panoptically, and only boxes can be deployed',
    'SingleStageInstanceSegmentor': MASKS,
    'MaskFormer': MASKS,
    'KnowledgeDistillationSingleStageDetector': TEACHER,
    'SemiBaseDetector': TEACHER,
    'BaseMOTModel': 'it tracks objects over images; give the config of its detector',
    'BaseReID': 'it tells apart what another detector has found, and finds no boxes',
    'GLIP': TEXT,
    'GroundingDINO': TEXT,
    'Detectron2Wrapper': 'it is a model of detectron2, which has no head of mmdet',
}
HEADS: Dict[str, str] = {**REASONS, 'BaseMaskHead': MASKS}
HEAD_FIELDS = ('bbox_head', 'rpn_head', 'panoptic_head')


def refusal(model: nn.Module, cfg: Config) -> Optional[str]:
    """Why a built detector cannot be deployed, in one sentence, or None.

    Args:
        model (nn.Module): A detector of mmdet.
        cfg (Config): Its config.
    """
    found = _of_classes(type(model), _of_head(type(getattr(model, 'bbox_head', None))))
    return found or FAMILIES.of(model).refuse(model, cfg)


def refuse_model(model: nn.Module, cfg: Config) -> None:
    """Raise BpuError for a built detector that cannot be deployed."""
    reason = refusal(model, cfg)
    if reason:
        raise BpuError(reason)


def refuse_config(cfg: Config) -> None:
    """Raise BpuError for a config whose detector's classes say that it cannot be deployed.

    Nothing is built. A class that no registry knows is left to the build, which says so.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        return
    scope = cfg.get('default_scope') or 'mmdet'
    with DefaultScope.overwrite_default_scope(scope):
        heads = [class_of(head, MODELS) for head in _heads_of(model)]
        cls = class_of(model, MODELS)
    reason = _of_classes(cls, next(filter(None, map(_of_head, heads)), None))
    if reason:
        raise BpuError(reason)


def _of_classes(detector: Optional[type], head: Optional[str]) -> Optional[str]:
    for base in getattr(detector, '__mro__', ()):
        if base.__name__ in DETECTORS:
            return f'{detector.__name__} cannot be deployed: {DETECTORS[base.__name__]}'
    return head


def _of_head(cls: Optional[type]) -> Optional[str]:
    for base in getattr(cls, '__mro__', ()):
        if FAMILIES.registered(base):
            return None
        if base.__name__ in HEADS:
            return f'{cls.__name__} cannot be deployed: {HEADS[base.__name__]}'
    return None


def _heads_of(model: Mapping) -> Iterator[Any]:
    for field in HEAD_FIELDS:
        heads = model.get(field)
        yield from heads if isinstance(heads, (list, tuple)) else [heads]
