"""What every part of a config has to be, before anything reads it.

mmengine takes any Python value for any field, and what reads it fails far away. Only the kinds of
values are checked here; whether a component takes its arguments is found out by building it.
"""
from collections.abc import Mapping
from typing import Any, Callable, Dict, NamedTuple

from mmengine.config import Config

from mmdet_bpu.errors import BpuError


class Kind(NamedTuple):
    """What a field may be.

    Attributes:
        words (str): In words.
        fits (Callable): Whether a value is of this kind.
    """
    words: str
    fits: Callable[[Any], bool]


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_component(value: Any) -> bool:
    # One without a type is left to what builds it.
    kind = value.get('type', 'absent') if _is_dict(value) else None
    return all(kind.split('.')) if isinstance(kind, str) else callable(kind)


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _is_list(value) and all(map(fits, value))


DICT = Kind('a dict', _is_dict)
COMPONENT = Kind('a dict whose type is a name or a class', _is_component)
HEADS = Kind('a dict, or a list of dicts', lambda value: _is_dict(value) or _all(_is_dict)(value))
COMPONENTS = Kind('a list of dicts whose types are names or classes', _all(_is_component))
LIST = Kind('a list', _is_list)
COUNT = Kind('a positive integer', lambda value: isinstance(value, int) and value > 0)
EPOCH = Kind('an integer', lambda value: isinstance(value, int))
TEXT = Kind('a text', lambda value: isinstance(value, str))
NAMES = Kind('a text or a list of texts', lambda value: isinstance(value, str) or _all(
    lambda name: isinstance(name, str))(value))

# Dotted field -> kind; each may also be None or absent.
FIELDS: Dict[str, Kind] = {
    'model': COMPONENT,
    'model.data_preprocessor': DICT,
    'model.data_preprocessor.mean': LIST,
    'model.data_preprocessor.std': LIST,
    'model.backbone': COMPONENT,
    'model.neck': HEADS,
    'model.bbox_head': HEADS,
    'model.rpn_head': HEADS,
    'model.panoptic_head': HEADS,
    'model.train_cfg': DICT,
    'model.test_cfg': DICT,
    'data_preprocessor': DICT,
    'data_preprocessor.mean': LIST,
    'data_preprocessor.std': LIST,
    'train_cfg': DICT,
    'train_cfg.max_epochs': COUNT,
    'val_cfg': DICT,
    'test_cfg': DICT,
    'optim_wrapper': COMPONENT,
    'optim_wrapper.optimizer': COMPONENT,
    'param_scheduler': HEADS,
    'default_hooks': DICT,
    'default_hooks.checkpoint': DICT,
    'custom_hooks': COMPONENTS,
    'custom_imports': DICT,
    'custom_imports.imports': NAMES,
    'randomness': DICT,
    'env_cfg': DICT,
    'auto_scale_lr': DICT,
    'log_processor': DICT,
    'visualizer': DICT,
    'bpu': DICT,
    'default_scope': TEXT,
    'work_dir': TEXT,
    'load_from': TEXT,
    'experiment_name': TEXT,
}
HOOK_FIELDS = dict(switch_pipeline=COMPONENTS, switch_epoch=EPOCH)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
LOADER_FIELDS = dict(dataset=COMPONENT, sampler=COMPONENT, batch_sampler=COMPONENT)
DATASET_FIELDS = dict(pipeline=COMPONENTS, metainfo=DICT, dataset=COMPONENT, datasets=COMPONENTS)
DEEPEST = 32  # data sets around data sets; more is a circle
WIDEST = 64  # bits of an integer: no tensor, file or counter has more


def check_structure(cfg: Config) -> None:
    """Check the kinds of a config's fields.

    Raises:
        BpuError: One is of another kind, or an integer is beyond any size.
    """
    _check_integers('', dict(cfg.items()))
    for path, kind in FIELDS.items():
        _check(path, _find(cfg, path), kind)
    for hook in cfg.get('custom_hooks') or ():
        for field, kind in HOOK_FIELDS.items():
            _check(f'custom_hooks[...].{field}', hook.get(field), kind)
    for name in LOADERS:
        loader = cfg.get(name)
        _check(name, loader, DICT)
        for field, kind in LOADER_FIELDS.items():
            _check(f'{name}.{field}', (loader or {}).get(field), kind)
        if loader and loader.get('dataset') is None:
            raise BpuError(f'field {name}.dataset: expected {COMPONENT.words}, found none')
        _check_dataset(f'{name}.dataset', (loader or {}).get('dataset'))


def _check_dataset(path: str, dataset: Any, depth: int = 0) -> None:
    if dataset is None:
        return
    if depth > DEEPEST:
        raise BpuError(f'field {path}: expected at most {DEEPEST} data sets around one another, '
                       'found more')
    for field, kind in DATASET_FIELDS.items():
        _check(f'{path}.{field}', dataset.get(field), kind)
    _check_dataset(f'{path}.dataset', dataset.get('dataset'), depth + 1)
    for index, member in enumerate(dataset.get('datasets') or ()):
        _check_dataset(f'{path}.datasets[{index}]', member, depth + 1)


def _check_integers(path: str, value: Any) -> None:
    if isinstance(value, int) and value.bit_length() >= WIDEST:
        raise BpuError(f'field {path}: expected an integer of at most {WIDEST} bits, found one of '
                       f'{value.bit_length() + 1}')
    if isinstance(value, Mapping):
        for name, member in value.items():
            _check_integers(f'{path}.{name}' if path else str(name), member)
    elif _is_list(value):
        for index, member in enumerate(value):
            _check_integers(f'{path}[{index}]', member)


def _find(cfg: Any, path: str) -> Any:
    for name in path.split('.'):
        if not isinstance(cfg, (Mapping, Config)):
            return None
        cfg = cfg.get(name)
    return cfg


def _check(path: str, value: Any, kind: Kind) -> None:
    if value is not None and not kind.fits(value):
        raise BpuError(f'field {path}: expected {kind.words}, found {shortened(value)}')


def shortened(value: Any, length: int = 120) -> str:
    """A value for a message."""
    words = repr(value)
    return words if len(words) <= length else f'{words[:length]} ...'
