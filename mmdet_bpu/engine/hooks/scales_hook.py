"""Scales that move while QAT trains, and when they stop."""
from typing import Optional

from mmengine.hooks import Hook

from mmdet_bpu.engine.qat_settings import FreezeSettings
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.quantization.trained_scales import move_scales, take_steps


class ScalesHook(Hook):
    """Let learned and following scales move until they are frozen.

    Whether they are follows from how far the run is, so a resumed one goes on alike.

    Args:
        freeze (FreezeSettings, optional): When they stop. Defaults to None: they do not.
    """

    # Before EMAHook, which copies what the step has made.
    priority = 'VERY_HIGH'

    def __init__(self, freeze: Optional[FreezeSettings] = None) -> None:
        self.freeze = freeze
        self._said = False

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Say whether they move."""
        frozen = self._is_frozen(runner)
        if frozen and not self._said:
            runner.logger.info(f'scales stay from epoch {runner.epoch}, iteration {runner.iter} on')
        self._said = frozen
        move_scales(quantization_of(runner.model), not frozen)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Move them."""
        take_steps(quantization_of(runner.model))

    def after_train(self, runner) -> None:
        """Leave a model behind whose scales stay."""
        move_scales(quantization_of(runner.model), False)

    def _is_frozen(self, runner) -> bool:
        if self.freeze is None:
            return False
        return (runner.epoch if self.freeze.by == 'epoch' else runner.iter) >= self.freeze.at
