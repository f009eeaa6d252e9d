"""Batch norms that are live while QAT trains, and the times at which parts of them are folded."""
from typing import Any, Iterable, Union

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from torch import nn

from mmdet_bpu.engine.model_copies import copied_models
from mmdet_bpu.engine.qat_settings import FoldSettings
from mmdet_bpu.errors import first_names
from mmdet_bpu.quantization.live_norms import norms_inside
from mmdet_bpu.quantization.norm_states import (counted_by_part, fold_parts, frozen_norms,
                                                live_paths, matching, unfold_all)


class BatchNormHook(Hook):
    """Let batch norms be live from the first step on, and fold each part when it is due.

    What is due follows from how far the run is, so a resumed one goes on alike. Processes normalise
    by their own images, and agree on the mean of their statistics after every step. The optimizer
    begins anew for parameters that mean something else once folded.

    Args:
        setting (str | FoldSettings): ``bpu.qat.batch_norm``: when what is folded, or ``'live'``.
    """

    # Before EMAHook, which copies what the step has made.
    priority = 'VERY_HIGH'

    def __init__(self, setting: Union[str, FoldSettings]) -> None:
        self.steps = setting if isinstance(setting, FoldSettings) else None

    def before_train(self, runner) -> None:
        """Let them be live, unless the run goes on."""
        model = _detector(runner)
        if not runner.is_resumed:
            for each in (model, *copied_models(runner)):
                unfold_all(each)
        frozen = frozen_norms(model)
        others = f'; {len(frozen)} keep their statistics: {first_names(frozen)}' if frozen else ''
        live = counted_by_part(live_paths(model)) or 'none'
        runner.logger.info(f'live batch norms: {live}{others}')

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Fold what is due."""
        if self.steps is None:
            return
        now = runner.epoch if self.steps.by == 'epoch' else runner.iter
        due = [glob for at, glob in zip(self.steps.at, self.steps.parts) if now >= at]
        model = _detector(runner)
        if not due or not matching(live_paths(model), due):
            return
        changed = fold_parts(model, due)
        for twin in copied_models(runner):
            fold_parts(twin, due)
        _begin_anew(runner.optim_wrapper, [p for several in changed.values() for p in several])
        runner.logger.info(
            f'epoch {runner.epoch}, iteration {runner.iter}: batch norms are folded of '
            f'{counted_by_part(changed)}; live: {counted_by_part(live_paths(model)) or "none"}')

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Have all processes hold the same statistics."""
        if get_world_size() > 1:
            average_statistics(_detector(runner))


def _detector(runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@torch.no_grad()
def average_statistics(detector: nn.Module) -> None:
    """Give live norms the mean of the running means and variances of all processes, in place."""
    held = [tensor for _, _, norm in norms_inside(detector) if norm.is_live
            for tensor in (norm.running_mean, norm.running_var)]
    if not held:
        return
    flat = torch.cat(held)
    all_reduce(flat, op='mean')
    for tensor, mean in zip(held, flat.split([len(tensor) for tensor in held])):
        tensor.copy_(mean)


def _begin_anew(optim_wrapper: Any, parameters: Iterable[nn.Parameter]) -> None:
    """Let optimizers forget the gradients and moments of parameters."""
    wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) \
        else [optim_wrapper]
    for parameter in parameters:
        parameter.grad = None
        for wrapper in wrappers:
            wrapper.optimizer.state.pop(parameter, None)
