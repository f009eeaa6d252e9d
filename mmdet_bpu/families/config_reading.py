"""Where the parts of an mmdet config are found, in whatever style it is written."""
from typing import Any, List, Optional

from mmengine.config import Config
from mmengine.registry import Registry

from mmdet_bpu.errors import BpuError


def type_name(config: Any) -> str:
    """Class name of a component: ``mmdet.Resize``, a module path and the class are ``Resize``."""
    kind = config.get('type', '') if isinstance(config, dict) else ''
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]


def class_of(config: Any, registry: Registry) -> Optional[type]:
    """Class that a component's config names; None if the registry does not know it."""
    return named_class(config.get('type') if isinstance(config, dict) else None, registry)


def named_class(kind: Any, registry: Registry) -> Optional[type]:
    """A class given by name or itself; None for a name that the registry does not know."""
    if not isinstance(kind, str):
        return kind
    try:
        return registry.get(kind)
    except (RuntimeError, TypeError):  # of a name that cannot be one of a module either
        return None


def innermost(dataset: dict) -> dict:
    """Config of the data set inside wrappers such as ``RepeatDataset``."""
    while dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    return dataset


def test_pipeline(cfg: Config) -> Optional[List[dict]]:
    """Transforms that the config tests with, else those it validates with; None without any."""
    for name in ('test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset')
        if dataset is not None:
            dataset = innermost(dataset)
            # Several data sets in one, as for an evaluation of their union, share a pipeline.
            for member in dataset.get('datasets') or [dataset]:
                if member.get('pipeline') is not None:
                    return member['pipeline']
    return None


def data_preprocessor(cfg: Config) -> dict:
    """Config of what normalises images, wherever it stands.

    Raises:
        BpuError: There is none.
    """
    found = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor')
    if not found:
        raise BpuError('field model.data_preprocessor: expected the config of the image '
                       'normalisation, found none')
    return found
