"""Train a stage: a detector in float, its calibration, or QAT."""
from typing import Optional

from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.resuming import resume_newest
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.engine.stages import default_work_dir
from mmdet_bpu.engine.whole_checkpoints import full_disk_reported
from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import require_folder

AUTO = 'auto'
"""Resume from the newest checkpoint of the run's own folder, if there is one."""


def train(cfg: Config, work_dir: Optional[str] = None, load_from: Optional[str] = None,
          resume: Optional[str] = None, amp: bool = False, auto_scale_lr: bool = False,
          launcher: str = 'none', from_statistics: Optional[str] = None) -> nn.Module:
    """Train a detector, calibrate it, or train it quantization-aware, as its config says.

    Args:
        cfg (Config): A config with a stage; completed in place.
        work_dir (str, optional): Folder of logs and checkpoints. Defaults to the config's, else
            ``work_dirs/CONFIG_STAGE``.
        load_from (str, optional): Checkpoint to start from. Defaults to the config's, else the
            newest one of the stage before.
        resume (str, optional): Go on with an interrupted run from this checkpoint; for
            :data:`AUTO` from the newest in its folder that opens, and without one start as if
            nothing were to be resumed.
        amp (bool): Automatic mixed precision.
        auto_scale_lr (bool): Scale the learning rate by the batch size.
        launcher (str): Job launcher.
        from_statistics (str, optional): Calibrate from what this calibration's checkpoint says that it
            saw, without an image. Its weights are taken too, unless ``load_from`` is given.

    Returns:
        nn.Module: The trained model.

    Raises:
        BpuError: Parameters that exclude each other, a wrong setting, or no checkpoint to start
            from.
    """
    set_run(cfg, work_dir, launcher)
    if resume and resume != AUTO and load_from:
        raise BpuError(f'parameter resume={resume} and parameter load_from={load_from} name two '
                       'files to go on from; give one of them')
    if from_statistics:
        _calibrate_from(cfg, from_statistics, resume)
        cfg.load_from = load_from or from_statistics
    elif load_from:
        cfg.load_from = load_from
    if resume == AUTO:
        resume_newest(cfg)
    elif resume:
        cfg.resume, cfg.load_from = True, resume
    if amp and cfg.get('optim_wrapper') is not None:  # without, training says so
        if get_device() == 'cpu':
            raise BpuError('parameter amp: expected a GPU or another accelerator, on which '
                           'mmengine\'s AmpOptimWrapper runs, found none; train without it')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise BpuError('parameter auto_scale_lr: expected auto_scale_lr.base_batch_size in the '
                           'config, found none')
        cfg.auto_scale_lr.enable = True
    with full_disk_reported(cfg.work_dir), refused_config(cfg):
        return BPURunner.from_cfg(cfg).train()


def _calibrate_from(cfg: Config, statistics: str, resume: Optional[str]) -> None:
    """Have the calibration of a config read no image."""
    if (cfg.get('bpu') or {}).get('stage') != CALIBRATION:
        raise BpuError("parameter from_statistics: expected a config of stage 'calibration'; give "
                       'parameter stage')
    if resume:
        raise BpuError('parameter from_statistics and parameter resume exclude each other: nothing '
                       'of it can be interrupted')
    cfg.train_cfg.from_statistics = statistics


def set_run(cfg: Config, work_dir: Optional[str], launcher: str) -> None:
    """Give a config the folder and the launcher of a run.

    Raises:
        BpuError: The folder cannot be written.
    """
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or default_work_dir(cfg.filename or 'config',
                                                                       cfg)
    require_folder(cfg.work_dir, 'parameter work_dir')
