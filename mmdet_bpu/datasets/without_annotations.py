"""Pipelines of pictures that nobody has annotated."""
from typing import Any, Optional

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_bpu.errors import BpuError

LOADERS = ('LoadAnnotations', )
FILTERS = ('FilterAnnotations', )
"""They drop pictures without boxes."""
CROPS = ('RandomCrop', )
"""They do so unless ``allow_negative_crop``."""


@TRANSFORMS.register_module()
class WithoutAnnotations(BaseTransform):
    """Stands in place of ``LoadAnnotations``: a picture has no boxes, whatever its sample says.

    Transforms that move boxes with the picture, mosaics among them, find none to move.

    Added Keys:

    - gt_bboxes (HorizontalBoxes of (0, 4))
    - gt_bboxes_labels (int64 (0, ))
    - gt_ignore_flags (bool (0, ))
    """

    def transform(self, results: dict) -> dict:
        """Add no boxes."""
        results['gt_bboxes'] = HorizontalBoxes(np.zeros((0, 4), np.float32))
        results['gt_bboxes_labels'] = np.zeros(0, np.int64)
        results['gt_ignore_flags'] = np.zeros(0, bool)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def without_annotations(config: Any) -> Any:
    """A pipeline's config that reads no annotation; the given one stays. Nested ones are followed."""
    if isinstance(config, (list, tuple)):
        return type(config)(without_annotations(step) for step in config if not _filters(step))
    if not isinstance(config, dict):
        return config
    if _is(config, LOADERS):
        return type(config)(type=WithoutAnnotations.__name__)
    found = type(config)({key: without_annotations(value) if key in ('transforms', 'transform')
                          else value for key, value in config.items()})
    if _is(config, CROPS):
        found['allow_negative_crop'] = True
    return found


def annotation_loader(pipeline: Any) -> Optional[str]:
    """Name of a step that reads annotations, or None.

    Args:
        pipeline (Sequence[dict | Callable] | dict | Callable): Configs or built transforms, nested
            ones too.
    """
    if isinstance(pipeline, (list, tuple)):
        return next((name for name in map(annotation_loader, pipeline) if name is not None), None)
    if _is(pipeline, LOADERS):
        return LOADERS[0]
    inner = pipeline.get('transforms') if isinstance(pipeline, dict) else \
        getattr(pipeline, 'transforms', None)
    return annotation_loader(inner) if isinstance(inner, (list, tuple)) else None


def refuse_annotations(pipeline: Any, dataset: str, place: str) -> None:
    """Refuse to load annotations where nobody has annotated anything.

    Args:
        pipeline (Sequence[dict | Callable]): Of the data set.
        dataset (str): Its class.
        place (str): Where its pictures are.

    Raises:
        BpuError: A step of the pipeline does.
    """
    loader = annotation_loader(pipeline)
    if loader is not None:
        raise BpuError(f'the pipeline of {dataset} has {loader}, and {place} has no annotations: train '
                       f'with bpu.qat.labels=False, which does without, or take {loader} out')


def _filters(step: Any) -> bool:
    return _is(step, FILTERS)


def _is(step: Any, names: tuple) -> bool:
    if isinstance(step, dict):
        kind = step.get('type')
        return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')
                ).rpartition('.')[2] in names
    return any(base.__name__ in names for base in type(step).__mro__)
