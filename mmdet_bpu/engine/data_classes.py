"""The classes of the data and of the head: as many, or labels mean something else."""
from typing import Any

from mmengine.config import Config

from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.families.class_names import head_classes

LABELLED_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
UNREAD_LABELS = ('train_dataloader', CALIBRATION)
"""Loader and stage: pictures of any kind calibrate."""


def check_classes(cfg: Config, field: str, dataset: Any) -> None:
    """Compare a data set's classes with those of the config's head.

    With more in the data than in the head, labels are no class or background; with fewer, a
    detection can be of a class that the evaluator has no name for.

    Args:
        cfg (Config): The run's.
        field (str): The loader's, for the message.
        dataset (Dataset): A data set of mmengine's kind; one without ``metainfo`` passes.

    Raises:
        BpuError: They differ in number.
    """
    if (cfg.get('model') or {}).get('rpn_head') is not None:
        return  # boxes of any class
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    count = head_classes(cfg)
    if names and isinstance(count, int) and len(names) != count:
        some = first_names([str(name) for name in names], 3)
        raise BpuError(
            f'field {field}: its data set has {len(names)} classes ({some}), but '
            f'model.bbox_head.num_classes is {count}; set that to {len(names)}, or '
            f'{field}.dataset.metainfo.classes to the classes of the head')
