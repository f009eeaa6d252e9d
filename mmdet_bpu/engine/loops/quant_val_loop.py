"""Validation of a prepared model, optionally in two states of its fake quantizers."""
from typing import Dict, List, Union

from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import ValLoop
from torch.utils.data import DataLoader

from mmdet_bpu.engine.hooks.stage_metric_hook import prefixed
from mmdet_bpu.quantization import set_quant_state

UNQUANTIZED = 'unquantized'


@LOOPS.register_module()
class QuantValLoop(ValLoop):
    """Validate with fake quantizers on; on request also with them off.

    Metrics of the second evaluation are named ``unquantized/...``, so neither overwrites the other,
    and hooks see one validation with all of them.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Validation data.
        evaluator (Evaluator | dict | list): Metrics.
        fp16 (bool): As in ``ValLoop``. Defaults to False.
        also_unquantized (bool): Whether to evaluate with the quantizers off as well: what the
            weights would give in float. Defaults to False.
    """

    def __init__(self,
                 runner,
                 dataloader: Union[DataLoader, Dict],
                 evaluator: Union[Evaluator, Dict, List],
                 fp16: bool = False,
                 also_unquantized: bool = False) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.also_unquantized = also_unquantized

    def run(self) -> dict:
        """Launch validation."""
        runner = self.runner
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        metrics = self._evaluate()
        if self.also_unquantized:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            set_quant_state(model, 'off')
            metrics.update(prefixed(self._evaluate(), UNQUANTIZED))
            set_quant_state(model, 'quantize')
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics

    def _evaluate(self) -> dict:
        self.val_loss.clear()
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
