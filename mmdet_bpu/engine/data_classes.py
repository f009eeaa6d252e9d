"""The classes of the data and of the head: as many, or labels mean something else."""
from typing import Any, Tuple

from mmengine.config import Config

from mmdet_bpu.engine.settings import BpuSettings
from mmdet_bpu.engine.stage_names import CALIBRATION, QAT
from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.families.class_names import head_classes

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def labelled_loaders(settings: BpuSettings) -> Tuple[str, ...]:
    """Loaders whose labels a run reads: pictures of any kind calibrate, and teach without labels."""
    unread = settings.stage == CALIBRATION or settings.stage == QAT and not settings.qat.labels
    return LOADERS[1:] if unread else LOADERS


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
