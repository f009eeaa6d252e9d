"""Calibration: observe activations over some batches, then fix their scales."""
import copy
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from mmdet_bpu.engine.model_copies import carry_over_quantization, carry_over_repairs
from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import finish_calibration, quantization_of, set_quant_state
from mmdet_bpu.quantization.repairs import (repair_calibrated, repairs_on_images, rounding_of,
                                            watch_products)


class NoImages:
    """The data of a calibration that reads no image.

    Args:
        metainfo (dict): Classes and the like, of the images that were seen.
    """

    def __init__(self, metainfo: dict) -> None:
        self.dataset = SimpleNamespace(metainfo=metainfo)


def local_batches(num_batches: int, available: int) -> int:
    """Batches that this process observes, of ``num_batches`` over all processes.

    Args:
        num_batches (int): ``bpu.calibration.num_batches``.
        available (int): Batches that this process' dataloader has.

    Raises:
        BpuError: There is no batch at all.
    """
    if available == 0:
        raise BpuError('field train_dataloader: calibration needs at least one batch, found none; '
                       'check the annotation file and drop_last')
    return min(-(-num_batches // get_world_size()), available)


def observe(model: nn.Module, dataloader: DataLoader, batches: int) -> Iterator[int]:
    """Run ``batches`` batches in eval mode with observers on; yields after each one.

    Args:
        model (nn.Module): A prepared model, wrapped or not.
        dataloader (DataLoader): Calibration data.
        batches (int): How many of its batches.
    """
    set_quant_state(_inner(model), 'observe')
    yield from run(model, dataloader, batches)


def run(model: nn.Module, dataloader: DataLoader, batches: int) -> Iterator[int]:
    """Run ``batches`` batches in eval mode; yields after each one."""
    model.eval()
    for index, data_batch in zip(range(batches), dataloader):
        with torch.no_grad():
            _inner(model).test_step(data_batch)
        yield index


def _inner(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def calibrate(model: nn.Module, dataloader: DataLoader, num_batches: int) -> None:
    """Calibrate a prepared model: observe, then turn statistics of all processes into scales.

    Args:
        model (nn.Module): A prepared model, wrapped or not.
        dataloader (DataLoader): Calibration data.
        num_batches (int): Batches over all processes together.
    """
    batches = local_batches(num_batches, len(dataloader))
    for index in observe(model, dataloader, batches):
        _say('calibration', index, batches)
    finish(model, dataloader, batches)


def finish(model: nn.Module, dataloader: DataLoader, batches: int) -> None:
    """Turn what was observed into scales, repair by the same images, and quantize from here on."""
    module = _inner(model)
    finish_calibration(module)
    quant = quantization_of(module)
    if repairs_on_images(quant.settings):
        inputs = watch_products(quant)
        with inputs.watching(quant):
            for index in run(model, dataloader, batches):
                _say('repairs', index, batches)
        inputs.reduce()
        repair_calibrated(module, quant, inputs, _forwards(quant, dataloader, batches), _log)
    set_quant_state(module, 'quantize')


def _forwards(quant: nn.Module, dataloader: DataLoader,
              batches: int) -> List[Callable[[nn.Module], Any]]:
    """Functions that run a detector on the batches that blocks are rounded with."""
    rounding = rounding_of(quant.settings)
    if rounding is None or not rounding.by_block:
        return []

    def on(data_batch: Any) -> Callable[[nn.Module], Any]:
        return lambda detector: detector.test_step(copy.deepcopy(data_batch))

    return [on(data_batch) for _, data_batch in zip(range(min(rounding.batches, batches)), dataloader)]


def _say(what: str, index: int, batches: int) -> None:
    if (index + 1) % 10 == 0 or index + 1 == batches:
        _log(f'{what}: batch {index + 1} of {batches}')


def _log(line: str) -> None:
    MMLogger.get_current_instance().info(line)


@LOOPS.register_module()
class CalibrationLoop(BaseLoop):
    """One epoch of observing, as a training loop without steps.

    Hooks see it as one training epoch of ``num_batches`` iterations, so that logging, checkpoints
    and resuming work as in training. Then the calibrated model is validated.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Calibration data.
        num_batches (int, optional): Batches over all processes together. Defaults to the runner's
            ``bpu.calibration.num_batches``.
        val_begin (int): First epoch after which is validated, as mmengine's training loops have it:
            more than 1 for never. Defaults to 1.
        from_statistics (str, optional): A calibration's checkpoint. The scales are chosen from what
            that calibration saw, by this config's observer, rules and dtypes; no image is read,
            and nothing is validated.
    """

    max_epochs = 1
    stop_training = False

    def __init__(self, runner, dataloader: Union[DataLoader, Dict], num_batches: int = 0,
                 val_begin: int = 1, from_statistics: Optional[str] = None) -> None:
        super().__init__(runner, NoImages(runner.calibrated_on) if from_statistics else dataloader)
        self.val_begin, self.from_statistics = val_begin, from_statistics
        self._epoch = 0
        self._iter = 0
        if from_statistics:
            self.max_iters = 0
            runner.visualizer.dataset_meta = runner.calibrated_on
            return
        num_batches = num_batches or runner.settings.calibration.num_batches
        self.max_iters = local_batches(num_batches, len(self.dataloader))
        if hasattr(self.dataloader.dataset, 'metainfo'):
            runner.visualizer.dataset_meta = self.dataloader.dataset.metainfo

    @property
    def epoch(self) -> int:
        """int: 0 before the observation has ended, then 1."""
        return self._epoch

    @property
    def iter(self) -> int:
        """int: Batches observed so far."""
        return self._iter

    def run(self) -> nn.Module:
        """Observe, fix scales, save through the hooks, validate."""
        self.runner.call_hook('before_train')
        if self.from_statistics:
            self._end_epoch()
        elif self._epoch < self.max_epochs:
            self.run_epoch()
            if self.runner.val_loop is not None and self._epoch >= self.val_begin:
                self.runner.val_loop.run()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Observe all batches."""
        self.runner.call_hook('before_train_epoch')
        batches = self._announced(iter(self.dataloader))
        for index in observe(self.runner.model, batches, self.max_iters):
            self.runner.call_hook(
                'after_train_iter', batch_idx=index, data_batch=None, outputs=None)
            self._iter += 1
        finish(self.runner.model, self.dataloader, self.max_iters)
        carry_over_repairs(self.runner)
        self._end_epoch()

    def _end_epoch(self) -> None:
        """The model has its scales: save it."""
        self.runner.weights_stage = CALIBRATION
        carry_over_quantization(self.runner)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _announced(self, batches: Iterator) -> Iterator:
        for index, data_batch in enumerate(batches):
            self.runner.call_hook('before_train_iter', batch_idx=index, data_batch=data_batch)
            yield data_batch
