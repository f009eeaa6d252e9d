"""Stages and how a config gets one.

``--stage`` merges a stage's recipe (:mod:`mmdet_bpu.engine.recipes`) into any config; a file under
``configs/`` holds the same recipe spelled out, so both ways end in the same config.

What depends on the rest of the config (data pipelines at the deployed shape, calibration data) is
completed by :func:`complete_config` when the runner is built, after command-line overrides.
"""
import copy
import os.path as osp
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.config import Config, ConfigDict

from mmdet_bpu.datasets.without_annotations import without_annotations
from mmdet_bpu.engine.deploy_preprocessing import (give_colors, rewrite_data_preprocessor,
                                                   rewrite_dataset, rewrite_switched_pipelines,
                                                   train_on_yuv, with_colors)
from mmdet_bpu.engine.config_files import import_named_modules, read_config
from mmdet_bpu.engine.config_structure import check_structure
from mmdet_bpu.engine.foreign_errors import in_one_line
from mmdet_bpu.engine.recipe_report import recipe_of
from mmdet_bpu.engine.recipes import put_recipe, stage_file
from mmdet_bpu.engine.settings import BpuSettings, validate_settings
from mmdet_bpu.engine.stage_hooks import hooks_of_stage
from mmdet_bpu.engine.stage_names import (CALIBRATION, EXECUTABLE_STAGES, FLOAT, QAT, STAGES,
                                          TRAINING_STAGES)
from mmdet_bpu.engine.unlabelled_data import read_no_labels
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.camera_format import (YUV, CameraFormat, camera_format,
                                              require_camera_shape)
from mmdet_bpu.families.config_reading import data_preprocessor, innermost
from mmdet_bpu.families.fitting_shape import shape_as_tested
from mmdet_bpu.families.picture_format import agreed_format
from mmdet_bpu.families.picture_resize import LETTERBOX, STRETCH, picture_resize

__all__ = ['calibration_dataloader', 'complete_config', 'default_work_dir', 'load_config',
           'recipes', 'refuse_strategies', 'stage_file']


def load_config(config: str, stage: Optional[str] = None,
                cfg_options: Optional[Dict[str, Any]] = None) -> Config:
    """Read a config, put a stage over it, then merge overrides.

    Args:
        config (str): Path of a config in either style, or ``mmdet::...`` of an installed package.
        stage (str, optional): One of float, calibration, qat, int, hbm. None keeps the config's
            own. A config that already is of this stage keeps its own values.
        cfg_options (dict, optional): Overrides, dotted keys allowed; they win over the stage.

    Raises:
        BpuError: No such config, it cannot be parsed, or no such stage.
    """
    return with_stage(read_config(config), config, stage, cfg_options)


def recipes(config: str, cfg_options: Optional[Dict[str, Any]] = None) -> List[Dict[str, Any]]:
    """How each training stage of a config trains; see :func:`recipe_of`.

    A config of another stage than float has the recipe of that one: which float run it goes on from
    it does not say.

    Args:
        config (str): As for :func:`load_config`.
        cfg_options (dict, optional): As there.

    Raises:
        BpuError: As there.
    """
    cfg = read_config(config)
    own = _own_stage(cfg)
    stages = TRAINING_STAGES if own in (None, FLOAT) else (own, )
    staged = [with_stage(copy.deepcopy(cfg), config, stage, cfg_options) for stage in stages]
    return [recipe_of(each, staged[0]) for each in staged]


def with_stage(cfg: Config, config: str, stage: Optional[str],
               cfg_options: Optional[Dict[str, Any]]) -> Config:
    """What :func:`load_config` makes of a config that was read, in place."""
    if stage is not None and stage not in STAGES:
        raise BpuError(f'unknown stage {stage!r}; expected one of {", ".join(STAGES)}')
    import_named_modules(cfg, config)
    check_structure(cfg)
    own = _own_stage(cfg)
    if stage in TRAINING_STAGES and own != stage:
        refuse_strategies(cfg)
        put_recipe(cfg, stage)
    elif stage in EXECUTABLE_STAGES:
        if own is None:
            refuse_strategies(cfg)
            put_recipe(cfg, QAT)
        cfg.bpu.stage = stage
    if cfg_options:
        try:
            cfg.merge_from_dict(cfg_options)
        except Exception as error:  # mmengine has no error of its own for it
            raise BpuError(f'parameter cfg_options: {cfg_options} cannot be merged into {config}: '
                           f'{in_one_line(error)}') from error
        check_structure(cfg)
    return cfg


def default_work_dir(config: str, cfg: Config) -> str:
    """``work_dirs/<config>_<stage>``; a name that ends with the stage is not given it twice."""
    name = Path(config.partition('::')[2] or config).stem
    stage = _own_stage(cfg) or 'float'
    return osp.join('work_dirs', name if name.endswith(stage) else f'{name}_{stage}')


def complete_config(cfg: Config) -> BpuSettings:
    """Validate ``cfg.bpu`` and rewrite what depends on it, in place.

    What ``bpu`` leaves open (shape, colour order and resize of the input) is read off the config and
    written there. With deploy preprocessing, which every stage beyond float has, all data comes as
    the deployed model gets it; the calibration stage reads training images through the validation
    transforms. Completing twice changes nothing more.

    Args:
        cfg (Config): A config with a stage.

    Returns:
        BpuSettings: The validated settings.

    Raises:
        BpuError: A setting is wrong, or the config asks for ``FlexibleRunner`` or ``strategy``.
    """
    check_structure(cfg)
    refuse_strategies(cfg)
    if cfg.get('bpu') is None:
        raise BpuError('the config has no key bpu, so its stage is unknown; give parameter stage, '
                       'or inherit from configs/float.py, configs/calibration.py or configs/qat.py')
    settings = validate_settings(cfg.bpu)
    if not cfg.get('default_scope'):  # python-style configs have none
        cfg.default_scope = 'mmdet'
    camera = camera_format(settings.input_format)
    if camera is not None and camera.model == YUV:
        train_on_yuv(data_preprocessor(cfg))
        if not settings.deploy_preprocessing:
            _give_yuv(cfg, camera)
    if settings.deploy_preprocessing:
        settings = _with_deployed_data(cfg, settings)
    if cfg.get('custom_hooks') is not None:
        cfg.custom_hooks = hooks_of_stage(cfg.custom_hooks, settings.stage)
    if settings.stage == QAT and not settings.qat.labels:
        read_no_labels(cfg)
    if settings.stage == CALIBRATION and cfg.get('train_dataloader') is not None:
        cfg.train_dataloader = calibration_dataloader(cfg)
    cfg.bpu = settings.as_dict()
    return settings


def _with_deployed_data(cfg: Config, settings: BpuSettings) -> BpuSettings:
    """Rewrite pipelines and data preprocessor; the settings with all that they stand for."""
    preprocessor = data_preprocessor(cfg)
    input_format = agreed_format(cfg, settings.input_format)
    resize = picture_resize(cfg, settings.input_shape, settings.resize)
    if settings.input_shape is None:
        height, width = shape_as_tested(cfg, resize.shape)
        resize = replace(resize, height=height, width=width)
    require_camera_shape(resize.camera, resize.shape)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            rewrite_dataset(cfg[name].get('dataset'), resize, preprocessor,
                            training=name.startswith('train'))
    rewrite_switched_pipelines(cfg.get('custom_hooks'), resize, preprocessor)
    rewrite_data_preprocessor(preprocessor)
    return replace(settings, input_shape=resize.shape, input_format=input_format,
                   resize=LETTERBOX if resize.keep_ratio else STRETCH)


def _give_yuv(cfg: Config, camera: CameraFormat) -> None:
    """Pictures of a float stage in their own sizes, as Y, U, V."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            give_colors(cfg[name].get('dataset'), camera, YUV)
    for hook in cfg.get('custom_hooks') or ():
        if hook.get('switch_pipeline') is not None:
            hook['switch_pipeline'] = with_colors(hook['switch_pipeline'], camera, YUV)


def calibration_dataloader(cfg: Config) -> ConfigDict:
    """Dataloader config of the calibration: training images through the validation transforms.

    Images are shuffled by the run's seed. They all have one shape, so none of the batch samplers
    that group by shape is needed.

    Args:
        cfg (Config): Holds ``train_dataloader`` and ``val_dataloader``.

    Raises:
        BpuError: One of them is absent, or the training data is a mixture without one pipeline.
    """
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name) is None:
            raise BpuError(f'field {name}: calibration needs training images and validation '
                           'transforms, found none')
    loader = copy.deepcopy(cfg.train_dataloader)
    batch_sampler = loader.pop('batch_sampler', None) or {}
    loader.setdefault('batch_size', batch_sampler.get('batch_size', 1))
    loader.sampler = ConfigDict(type='DefaultSampler', shuffle=True)
    dataset = loader.dataset
    pipeline = innermost(cfg.val_dataloader.dataset).get('pipeline')
    if pipeline is None:
        raise BpuError('field val_dataloader.dataset: expected a pipeline, found none')
    while dataset.get('dataset') is not None:  # repeating or mixing: here each image counts once
        dataset = dataset.dataset
    for member in dataset.get('datasets') or [dataset]:  # annotated or not
        innermost(member).pipeline = without_annotations(copy.deepcopy(pipeline))
    loader.dataset = dataset
    return loader


def refuse_strategies(cfg: Config) -> None:
    """Raise BpuError for ``FlexibleRunner`` and ``strategy``.

    They build, wrap and load the model in an order of their own; prepared models need ours.
    """
    if cfg.get('strategy') is not None:
        raise BpuError('field strategy: expected none, found '
                       f'{dict(cfg.strategy).get("type", cfg.strategy)!r}; the model is converted '
                       'where BPURunner builds it. Remove strategy; distribute by '
                       'parameter launcher')
    if cfg.get('runner_type', 'BPURunner') == 'FlexibleRunner':
        raise BpuError("field runner_type: expected 'BPURunner', found 'FlexibleRunner', which "
                       'builds models through strategies; remove it')


def _own_stage(cfg: Config) -> Optional[str]:
    bpu = cfg.get('bpu')
    return bpu.get('stage') if isinstance(bpu, dict) else None
