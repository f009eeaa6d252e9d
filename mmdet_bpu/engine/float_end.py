"""The state in which a float run ends: what QAT goes on with.

Some stock configs change their training at an epoch: RTMDet switches to a pipeline without mosaic,
YOLOX closes mosaic and adds an L1 loss, TOOD leaves its warm-up assigner, moving averages begin.
QAT is a few epochs more of the same training, so it begins where these have happened.
"""
import copy
from typing import Any, List, Optional

from mmdet.engine.hooks import PipelineSwitchHook, YOLOXModeSwitchHook
from mmengine.config import Config, ConfigDict

from mmdet_bpu.engine.stage_hooks import begun, is_hook
from mmdet_bpu.families.config_reading import innermost, type_name

# YOLOXModeSwitchHook counts from the end of a run: more epochs than any has.
ALL_EPOCHS = 1_000_000
SKIPPED_BY_YOLOX = ('Mosaic', 'RandomAffine', 'MixUp')  # the hook's own default
MIXING_DATASET = 'MultiImageMixDataset'
ENDLESS_SAMPLER = 'InfiniteSampler'


def go_on_from_float_end(cfg: Config) -> None:
    """Put what changes during a float run into the state of its end, in place.

    Args:
        cfg (Config): With its float recipe still in place: ``train_cfg`` says how many epochs.
    """
    epochs = epochs_of(cfg)
    hooks = copy.deepcopy(list(cfg.get('custom_hooks') or []))
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    switched = _last_pipeline(hooks, epochs)
    if switched is not None and dataset is not None:
        _set_pipeline(dataset, switched)
    kept = []
    for hook in hooks:
        if is_hook(hook, PipelineSwitchHook):
            continue
        if is_hook(hook, YOLOXModeSwitchHook):
            hook['num_last_epochs'] = ALL_EPOCHS
            if dataset is not None and type_name(dataset) == MIXING_DATASET:
                dataset['skip_type_keys'] = tuple(hook.get('skip_type_keys', SKIPPED_BY_YOLOX))
        kept.append(begun(hook))
    if cfg.get('custom_hooks') is not None:
        cfg.custom_hooks = kept
    _end_warm_up(cfg)
    _count_epochs(cfg)


def epochs_of(cfg: Config) -> int:
    """Epochs that hooks see a float run count: 1 in a run by iterations."""
    return int((cfg.get('train_cfg') or {}).get('max_epochs') or 1)


def _last_pipeline(hooks: List[Any], epochs: int) -> Optional[List[dict]]:
    """Pipeline that the last switch within ``epochs`` leaves; None without one."""
    happened = [hook for hook in hooks
                if is_hook(hook, PipelineSwitchHook) and hook['switch_epoch'] < epochs]
    # Of two in one epoch the later in the list has the last word.
    return max(enumerate(happened), key=lambda pair: (pair[1]['switch_epoch'], pair[0]),
               default=(0, {}))[1].get('switch_pipeline')


def _set_pipeline(dataset: dict, pipeline: List[dict]) -> None:
    """The pipeline of the outermost data set that has one, as the hook sets it."""
    while dataset.get('pipeline') is None and dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    for member in dataset.get('datasets') or [dataset]:
        (member if member.get('pipeline') is not None else innermost(member))['pipeline'] = \
            copy.deepcopy(pipeline)


def _end_warm_up(cfg: Config) -> None:
    """Heads with an assigner for the first epochs (TOOD) count QAT's epochs from 0 again."""
    train_cfg = (cfg.get('model') or {}).get('train_cfg') or {}
    if train_cfg.get('initial_epoch'):
        train_cfg['initial_epoch'] = 0


def _count_epochs(cfg: Config) -> None:
    """An epoch of a run by iterations never ends: its sampler is endless."""
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    if type_name(sampler) == ENDLESS_SAMPLER:
        loader['sampler'] = ConfigDict(
            type='DefaultSampler', shuffle=sampler.get('shuffle', True))
