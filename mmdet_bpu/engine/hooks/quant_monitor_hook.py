"""How much quantization costs each part of the network while it trains, as curves."""
from collections import defaultdict
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmdet_bpu.analysis.network_parts import part_of
from mmdet_bpu.analysis.tensor_errors import HIGHEST, ratio_db
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.quantized_detector import Quantization, public_name

PREFIX = 'quant'


@HOOKS.register_module()
class QuantMonitorHook(Hook):
    """Write saturation and SQNR of the parts of a network in training to the visualizer.

    Every ``interval`` steps of QAT the fake quantizers are watched during one training step. Per
    top-level module (``backbone``, ``neck``, ``encoder``, ``decoder``, ``bbox_head``) there are

    * ``quant/sqnr_db/PART``: mean over its tensors of their own SQNR, dB,
    * ``quant/lowest_sqnr_db/PART``: that of the worst of them,
    * ``quant/saturated/PART``: share of its elements outside of their range,

    in every backend of the config's visualizer (TensorBoard, W&B, a file). They are those of the
    first process's images. A watched step computes the same losses, bit for bit; its gradients may
    differ in the last bits of float32, as what runs at once otherwise is written out. In stages
    that do not train quantized, the hook does nothing.

    Args:
        interval (int): Steps of training from one watched step to the next. Defaults to 50.

    Raises:
        BpuError: ``interval`` is no positive integer.
    """

    # Before hooks that save or copy the model: a watched quantizer never reaches them.
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 50) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise BpuError('field custom_hooks: expected interval of QuantMonitorHook to be a positive '
                           f'integer, found {interval!r}')
        self.interval = interval
        self._watch: Optional[QuantizerWatch] = None

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin to watch, where this step is to be."""
        if not is_main_process() or not self.every_n_train_iters(runner, self.interval):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        quant = getattr(model, 'quant', None)
        if isinstance(quant, Quantization) and quant.state.quantizes:
            self._watch = QuantizerWatch(quant)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """End, and hand on what was seen."""
        if self._watch is None:
            return
        scalars = self._watch.end()
        self._watch = None
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)


class QuantizerWatch:
    """Sums over what fake quantizers are given and make of it, from now until :meth:`end`.

    Nothing waits for a result before that.

    Args:
        quant (Quantization): Of a prepared detector.
    """

    def __init__(self, quant: Quantization) -> None:
        self._sums: Dict[str, List[Tensor]] = defaultdict(list)
        self._handles = []
        for key, quantizer in quant.quantizers.items():
            if quantizer.dtype != 'int32':  # sums, which are never rounded
                self._handles.append(quantizer.register_forward_hook(self._seen(public_name(key))))

    def _seen(self, name: str):

        @torch.no_grad()
        def add(quantizer: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
            if inputs[0].numel():
                self._sums[name].append(_sums_of(quantizer, inputs[0], output))

        return add

    def end(self) -> Dict[str, float]:
        """Stop watching; the scalars by name."""
        for handle in self._handles:
            handle.remove()
        parts: Dict[str, List[Tuple[float, ...]]] = defaultdict(list)
        for name, sums in self._sums.items():
            parts[part_of(name)].append(tuple(torch.stack(sums).sum(0).tolist()))
        scalars = {}
        for part, rows in parts.items():
            ratios = [HIGHEST if noise == 0 else ratio_db(signal, noise)
                      for signal, noise, _, _ in rows if signal > 0]
            if ratios:
                scalars[f'{PREFIX}/sqnr_db/{part}'] = sum(ratios) / len(ratios)
                scalars[f'{PREFIX}/lowest_sqnr_db/{part}'] = min(ratios)
            scalars[f'{PREFIX}/saturated/{part}'] = (sum(row[2] for row in rows)
                                                     / sum(row[3] for row in rows))
        return scalars


def _sums_of(quantizer: FakeQuantizer, given: Tensor, rounded: Tensor) -> Tensor:
    """Signal, noise, saturated elements, elements; float64 (4, )."""
    given = given.float()
    low, high = integer_range(quantizer.dtype)
    levels = given / quantizer.scale
    saturated = ((levels < low - 0.5) | (levels > high + 0.5)).sum(dtype=torch.float64)
    finite = torch.isfinite(given)
    signal = torch.where(finite, given, 0.0).double().square().sum()
    noise = torch.where(finite, given - rounded.float(), 0.0).double().square().sum()
    return torch.stack([signal, noise, saturated, torch.full_like(signal, given.numel())])
