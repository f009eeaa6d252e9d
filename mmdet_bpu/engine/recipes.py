"""How each stage trains: what ``--stage`` merges into a config.

Any detector keeps its own recipe in float. Calibration takes no steps. QAT goes on with the config's
own optimizer and parameter groups at a tenth of its rate. The family of Deformable DETR has a
recipe of its own, the one that its published accuracy was measured with: the files
``configs/float.py``, ``calibration.py`` and ``qat.py``.
"""
import copy
import inspect
import runpy
from pathlib import Path
from typing import Any, Dict, Optional

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

import mmdet_bpu
from mmdet_bpu.engine.float_end import go_on_from_float_end
from mmdet_bpu.engine.stage_names import CALIBRATION, FLOAT, QAT
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import class_of, type_name

REGISTRATION = 'mmdet_bpu.registration'
# Detectors whose recipe stands in configs/<stage>.py.
FAMILY_WITH_FILES = ('DeformableDETR', )

QAT_EPOCHS = 6
QAT_DECAY_AT = 5
QAT_DECAY = 0.1
QAT_SLOWER = 10  # times than the float recipe
# Loops of mmengine that a stage of ours replaces; a user's own class stays.
STOCK_VAL_LOOPS = ('', 'ValLoop')


def put_recipe(cfg: Config, stage: str) -> None:
    """Merge a stage's recipe into a config, in place.

    A recipe of another stage that stands in ``cfg`` already has taken the place of the float one.
    What is left then can calibrate and evaluate, but has no optimizer to train by: training says so.

    Args:
        cfg (Config): Any config, of no stage or of another one.
        stage (str): float, calibration or qat.
    """
    is_float = (cfg.get('bpu') or {}).get('stage') in (None, FLOAT)
    if stage == QAT and is_float:
        go_on_from_float_end(cfg)
    if has_files(cfg):
        recipe = _recipe_of_file(stage)
    else:
        recipe = {FLOAT: _float, CALIBRATION: _calibration, QAT: _qat}[stage](cfg)
        if stage != CALIBRATION and not is_float:
            recipe.update(optim_wrapper=None, param_scheduler=None, train_cfg=None)
    recipe = dict(recipe, runner_type='BPURunner', bpu=dict(stage=stage))
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    recipe['custom_imports'] = dict(imports=list(dict.fromkeys([*imports, REGISTRATION])),
                                    allow_failed_imports=False)
    cfg.merge_from_dict(_mergeable(recipe, cfg))


def has_files(cfg: Config) -> bool:
    """Whether the detector's family has its recipe in files of its own."""
    return type_name(cfg.get('model')) in FAMILY_WITH_FILES


def stage_file(stage: str) -> Path:
    """The config file of a training stage of Deformable DETR, in a checkout or installed."""
    package = Path(mmdet_bpu.__file__).parent
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if (folder / f'{stage}.py').is_file():
            return folder / f'{stage}.py'
    raise BpuError(f'configs/{stage}.py not found beside {package}; install mmdet_bpu again')


def _recipe_of_file(stage: str) -> Dict[str, Any]:
    """What the file sets, without what it inherits from."""
    names = runpy.run_path(str(stage_file(stage)))
    return {name: value for name, value in names.items() if not name.startswith('_')}


def _float(cfg: Config) -> Dict[str, Any]:
    return {}


def _calibration(cfg: Config) -> Dict[str, Any]:
    return dict(
        # Never stepped: a runner with a training loop has to have one.
        optim_wrapper=dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)),
        param_scheduler=None,
        train_cfg=dict(_delete_=True, type='CalibrationLoop'),
        default_hooks=dict(checkpoint=dict(
            _delete_=True, type='CheckpointHook', interval=1, save_optimizer=False,
            save_param_scheduler=False)),
        **_epochs_and_validation(cfg))


def _qat(cfg: Config) -> Dict[str, Any]:
    checkpoint = dict((cfg.get('default_hooks') or {}).get('checkpoint') or {})
    checkpoint.pop('save_begin', None)
    checkpoint.update(_delete_=True, interval=1, by_epoch=True)
    checkpoint.setdefault('type', 'CheckpointHook')
    return dict(
        optim_wrapper=_slow_optimizer(cfg.get('optim_wrapper')),
        param_scheduler=[
            dict(type='MultiStepLR', begin=0, end=QAT_EPOCHS, by_epoch=True,
                 milestones=[QAT_DECAY_AT], gamma=QAT_DECAY)],
        train_cfg=dict(_delete_=True, type='QATLoop', max_epochs=QAT_EPOCHS, val_interval=1),
        default_hooks=dict(checkpoint=checkpoint),
        **_epochs_and_validation(cfg))


def _epochs_and_validation(cfg: Config) -> Dict[str, Any]:
    log_processor = dict(by_epoch=True)
    if not cfg.get('log_processor'):
        log_processor.update(type='LogProcessor', window_size=50)
    recipe: Dict[str, Any] = dict(log_processor=log_processor)
    if cfg.get('val_dataloader') is not None and \
            type_name(cfg.get('val_cfg') or {}) in STOCK_VAL_LOOPS:
        recipe['val_cfg'] = dict(type='QuantValLoop')
    return recipe


def _slow_optimizer(float_one: Optional[dict]) -> Optional[Dict[str, Any]]:
    """The float recipe's optimizer wrapper at QAT's rate; None if it has no rate to take a part of."""
    wrapper = copy.deepcopy(dict(float_one or {}))
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get('lr'), (int, float)):
        return None
    optimizer = dict(optimizer, lr=optimizer['lr'] / QAT_SLOWER)
    if 'weight_decay' in optimizer or _decays_by_default(optimizer):
        optimizer['weight_decay'] = 0.0
    return dict(wrapper, _delete_=True, optimizer=optimizer)


def _decays_by_default(optimizer: dict) -> bool:
    kind = class_of(optimizer, OPTIMIZERS)
    return kind is not None and 'weight_decay' in inspect.signature(kind).parameters


def _mergeable(recipe: Dict[str, Any], below: Any) -> Dict[str, Any]:
    """``recipe`` for mmengine's merge, which keeps a ``_delete_`` where there is nothing to delete."""
    merged = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            there = below.get(key) if hasattr(below, 'get') else None
            replaces = value.get('_delete_', False) or not isinstance(there, dict)
            value = _mergeable({k: v for k, v in value.items() if k != '_delete_'},
                               {} if replaces else there)
            if replaces and hasattr(below, 'get') and key in below:
                value['_delete_'] = True
        merged[key] = value
    return merged
