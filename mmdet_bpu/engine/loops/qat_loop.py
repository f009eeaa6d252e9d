"""Quantization-aware training."""
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmdet_bpu.engine.loops.calibration_loop import calibrate
from mmdet_bpu.engine.stages import calibration_dataloader


@LOOPS.register_module()
class QATLoop(EpochBasedTrainLoop):
    """Epoch-based training of a prepared model; calibrates first if its weights are float ones."""

    def run(self) -> nn.Module:
        """Launch training."""
        if self.runner.needs_calibration:
            self._calibrate(self.runner)
        return super().run()

    @staticmethod
    def _calibrate(runner: Any) -> None:
        runner.logger.info('the weights are float ones: calibrating first')
        loader = runner.build_dataloader(
            runner.seeded(calibration_dataloader(runner.cfg)), seed=runner.seed)
        calibrate(runner.model, loader, runner.settings['calibration']['num_batches'])
        runner.weights_stage = 'calibration'
