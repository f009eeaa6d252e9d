"""Names of the classes that a config's detector tells apart."""
from typing import List, Optional

from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_bpu.families.config_reading import class_of


def class_names(cfg: Config) -> List[str]:
    """Class names of the test data: the config's metainfo, else those of the dataset class."""
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    names = (dataset.get('metainfo') or {}).get('classes')
    if not names and dataset.get('type'):
        names = getattr(class_of(dataset, DATASETS), 'METAINFO', {}).get('classes')
    count = head_classes(cfg)
    return list(names) if names and (count is None or len(names) == count) else []


def head_classes(cfg: Config) -> Optional[int]:
    """Number of classes of the box head's config; None where there is no one head that says it."""
    if cfg.model.get('rpn_head') is not None:
        return 1  # boxes of any class: mmdet's RPN sets it
    head = cfg.model.get('bbox_head')
    heads = head if isinstance(head, (list, tuple)) else [head]
    found = {each.get('num_classes') for each in heads if isinstance(each, dict)}
    return found.pop() if len(found) == 1 else None
