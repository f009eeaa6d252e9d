"""Stages and how a config gets one.

A stage's overlay is the text of ``configs/float.py``, ``configs/calibration.py`` or
``configs/qat.py``. As a file, its ``_base_`` is the stock Deformable DETR. ``--stage`` over any
config takes the same text with that config as ``_base_``, so both ways end in the same config.

What depends on the rest of the config (data pipelines at the deployed shape, calibration data) is
completed by :func:`complete_config` when the runner is built, after command-line overrides.
"""
import ast
import copy
import os.path as osp
from pathlib import Path
from typing import Any, Dict, Optional

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

import mmdet_bpu
from mmdet_bpu.engine.deploy_preprocessing import rewrite_data_preprocessor, rewrite_dataset
from mmdet_bpu.engine.settings import (EXECUTABLE_STAGES, STAGES, TRAINING_STAGES,
                                       validate_settings)
from mmdet_bpu.errors import BpuError

REGISTRATION = 'mmdet_bpu.registration'


def load_config(config: str, stage: Optional[str] = None,
                cfg_options: Optional[Dict[str, Any]] = None) -> Config:
    """Read a config, put a stage over it, then merge overrides.

    Args:
        config (str): Path of a config, or ``mmdet::...`` of an installed package.
        stage (str, optional): One of float, calibration, qat, int, hbm. None keeps the config's
            own. A config that already is of this stage keeps its own values.
        cfg_options (dict, optional): Overrides, dotted keys allowed; they win over the stage.

    Raises:
        BpuError: No such config, it cannot be parsed, or no such stage.
    """
    if stage is not None and stage not in STAGES:
        raise BpuError(f'unknown stage {stage!r}; expected one of {", ".join(STAGES)}')
    cfg = _read_config(config)
    own = _own_stage(cfg)
    if stage in TRAINING_STAGES and own != stage:
        cfg = _put_over(config, stage, cfg)
    elif stage in EXECUTABLE_STAGES:
        if own is None:
            cfg = _put_over(config, 'qat', cfg)
        cfg.bpu.stage = stage
    if cfg_options:
        try:
            cfg.merge_from_dict(cfg_options)
        except (TypeError, KeyError, IndexError) as error:
            raise BpuError(f'parameter cfg_options: {cfg_options} cannot be merged into {config}: '
                           f'{error}') from error
    return cfg


def default_work_dir(config: str, cfg: Config) -> str:
    """``work_dirs/<config>_<stage>``; a name that ends with the stage is not given it twice."""
    name = Path(config.partition('::')[2] or config).stem
    stage = _own_stage(cfg) or 'float'
    return osp.join('work_dirs', name if name.endswith(stage) else f'{name}_{stage}')


def complete_config(cfg: Config) -> Dict[str, Any]:
    """Validate ``cfg.bpu`` and rewrite what depends on it, in place.

    Beyond the float stage all data gets the deploy preprocessing, and the calibration stage reads
    training images through the validation transforms. Completing twice changes nothing more.

    Args:
        cfg (Config): A config with a stage.

    Returns:
        dict: The validated settings.

    Raises:
        BpuError: A setting is wrong, or the config asks for ``FlexibleRunner`` or ``strategy``.
    """
    refuse_strategies(cfg)
    if cfg.get('bpu') is None:
        raise BpuError('the config has no key bpu, so its stage is unknown; give parameter stage, '
                       'or inherit from configs/float.py, configs/calibration.py or configs/qat.py')
    settings = validate_settings(cfg.bpu)
    if settings['deploy_preprocessing']:
        preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
        if not preprocessor:
            raise BpuError('field model.data_preprocessor: expected the config of the image '
                           'normalisation, found none')
        rewrite_data_preprocessor(preprocessor, settings['input_format'])
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(name) is not None:
                rewrite_dataset(cfg[name].get('dataset'), settings['input_shape'])
    if settings['stage'] == 'calibration' and cfg.get('train_dataloader') is not None:
        cfg.train_dataloader = calibration_dataloader(cfg)
    return settings


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
    pipeline = _innermost(cfg.val_dataloader.dataset).get('pipeline')
    if pipeline is None:
        raise BpuError('field val_dataloader.dataset: expected a pipeline, found none')
    while dataset.get('dataset') is not None:  # repeating or mixing: here each image counts once
        dataset = dataset.dataset
    for member in dataset.get('datasets') or [dataset]:
        _innermost(member).pipeline = copy.deepcopy(pipeline)
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


def stage_file(stage: str) -> Path:
    """The config file that is the overlay of a training stage, in a checkout or installed."""
    package = Path(mmdet_bpu.__file__).parent
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if (folder / f'{stage}.py').is_file():
            return folder / f'{stage}.py'
    raise BpuError(f'configs/{stage}.py not found beside {package}; install mmdet_bpu again')


def _put_over(config: str, stage: str, below: Config) -> Config:
    """The text of a stage file with ``config`` as its ``_base_``."""
    refuse_strategies(below)
    tree = ast.parse(stage_file(stage).read_text(encoding='utf-8'))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            node.value = ast.Constant(config if '::' in config else osp.abspath(config))
    cfg = Config.fromstring(ast.unparse(tree), '.py')
    imports = [*below.get('custom_imports', {}).get('imports', []), *cfg.custom_imports.imports]
    cfg.custom_imports.imports = list(dict.fromkeys(imports))
    return Config(cfg.to_dict(), filename=below.filename)


def _read_config(config: str) -> Config:
    if '::' not in config and not Path(config).is_file():
        raise BpuError(f'config {config} not found; expected a file, or mmdet::FOLDER/NAME.py')
    try:
        return get_config(config) if '::' in config else Config.fromfile(config)
    except (FileNotFoundError, SyntaxError, KeyError, TypeError, ValueError, OSError) as error:
        raise BpuError(
            f'config {config} cannot be read: {type(error).__name__}: {error}') from error


def _own_stage(cfg: Config) -> Optional[str]:
    bpu = cfg.get('bpu')
    return bpu.get('stage') if isinstance(bpu, dict) else None


def _innermost(dataset: dict) -> dict:
    while dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    return dataset
