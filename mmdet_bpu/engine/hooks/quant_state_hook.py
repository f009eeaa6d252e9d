"""Fake quantizers are on while a QAT model trains and whenever a quantized model is evaluated."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from mmdet_bpu.quantization import set_quant_state


@HOOKS.register_module()
class QuantStateHook(Hook):
    """Switch fake quantizers on when training, validation or test begins.

    Loops that need another state for a while (observing, validating unquantized) set it inside.
    ``train()`` and ``eval()`` carry no state.
    """

    # Before EMAHook and every hook that runs the model.
    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner) -> None:
        """Quantize during training."""
        self._quantize(runner)

    def before_val_epoch(self, runner) -> None:
        """Quantize during validation."""
        self._quantize(runner)

    def before_test_epoch(self, runner) -> None:
        """Quantize during test."""
        self._quantize(runner)

    @staticmethod
    def _quantize(runner) -> None:
        model = runner.model
        set_quant_state(model.module if is_model_wrapper(model) else model, 'quantize')
