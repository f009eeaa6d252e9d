"""Fake quantizers are on while a QAT model trains and whenever a quantized model is evaluated."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from mmdet_bpu.engine.model_copies import carry_over_quantization
from mmdet_bpu.errors import first_names
from mmdet_bpu.quantization import quantization_of, set_quant_state


@HOOKS.register_module()
class QuantStateHook(Hook):
    """Switch fake quantizers on when training, validation or test begins.

    Loops that need another state for a while (observing, validating unquantized) set it inside.
    ``train()`` and ``eval()`` carry no state. Copies of the model that other hooks keep get scales and
    state before they are used or saved.
    """

    # Before EMAHook and every hook that runs the model.
    priority = 'VERY_HIGH'
    _said = False

    def before_train_epoch(self, runner) -> None:
        """Quantize during training."""
        self._quantize(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """Say once what training leaves unquantized."""
        untrained = quantization_of(runner.model).untrained
        if untrained and not self._said:
            runner.logger.warning(
                f'{len(untrained)} quantized sites run in prediction alone, so training does not '
                f'see their rounding: {first_names(untrained)}')
        self._said = self._said or untrained is not None

    def before_val_epoch(self, runner) -> None:
        """Quantize during validation."""
        self._quantize(runner)

    def before_test_epoch(self, runner) -> None:
        """Quantize during test."""
        self._quantize(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Let an averaged model be saved with the scales."""
        carry_over_quantization(runner)

    @staticmethod
    def _quantize(runner) -> None:
        if runner.needs_calibration:  # its loop observes first
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        quantization_of(model).require_scales()
        set_quant_state(model, 'quantize')
        carry_over_quantization(runner)
