"""A validation that was killed is done when the run goes on."""
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmdet_bpu.engine.loops.calibration_loop import CalibrationLoop
from mmdet_bpu.engine.whole_checkpoints import MARK
from mmdet_bpu.output_folder import atomic_file

RECORD = 'last_validation'
"""File in the run's folder: epochs and iterations trained when a validation last ended."""


@HOOKS.register_module()
class DueValidationHook(Hook):
    """Validate before training goes on, if the run was killed after it saved and before it validated.

    mmengine's loops save, then validate; a resumed one goes on with the next epoch. The metrics of
    the epoch would be missing, after the last epoch those of the run, and the best checkpoint with
    them.
    """

    # After every other hook: what they make of the metrics has been done when it is recorded.
    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        """Catch up on a validation."""
        if runner.is_resumed and runner.val_loop is not None and _is_due(runner.train_loop) \
                and _recorded(runner) != _progress(runner):
            runner.logger.info('validating first: the run ended before it did')
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Record that it was done."""
        if runner.is_training and is_main_process():
            with atomic_file(Path(runner.work_dir, RECORD), MARK) as partial:
                partial.write_text(_progress(runner), encoding='utf-8')


def _is_due(loop) -> bool:
    """Whether a loop validates at the point that it has reached."""
    if isinstance(loop, CalibrationLoop):
        return loop.epoch == loop.max_epochs >= loop.val_begin
    if isinstance(loop, EpochBasedTrainLoop):
        done, end = loop.epoch, loop.max_epochs
        if loop.iter != done * len(loop.dataloader):  # inside an epoch
            return False
    elif isinstance(loop, IterBasedTrainLoop):
        done, end = loop.iter, loop.max_iters
    else:
        return False
    if done == 0:
        return False
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


def _progress(runner) -> str:
    return f'epoch {runner.epoch}, iteration {runner.iter}'


def _recorded(runner) -> str:
    try:
        return Path(runner.work_dir, RECORD).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return ''
