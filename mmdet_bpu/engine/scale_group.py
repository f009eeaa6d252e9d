"""The optimizer's own group for learned scales."""
from typing import Any

from mmengine.optim import OptimWrapper
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.quantization.trained_scales import LearnedScale, trained_scales

MARK = 'bpu_scales'
"""Key of the group."""


def group_scales(optim_wrapper: Any, model: nn.Module) -> None:
    """Take learned scales out of the groups that a config made and give them one of their own, in place.

    Its rate is that of the first group times ``lr_mult``, and nothing decays. Schedulers, which are built
    after, treat it as the others.

    Args:
        optim_wrapper (OptimWrapper): Of the run, built.
        model (nn.Module): The prepared detector, wrapped or not.

    Raises:
        BpuError: There are several optimizers.
    """
    learned = [each for each in trained_scales(quantization_of(model))
               if isinstance(each, LearnedScale)]
    if not learned:
        return
    if not isinstance(optim_wrapper, OptimWrapper):
        raise BpuError("field bpu.qat.scales: 'learned' needs one optimizer, found "
                       f'{type(optim_wrapper).__name__}')
    optimizer = optim_wrapper.optimizer
    if any(MARK in group for group in optimizer.param_groups):
        return  # a resumed run asks twice
    steps = {id(each.step): each.step for each in learned}
    for group in optimizer.param_groups:
        group['params'] = [p for p in group['params'] if id(p) not in steps]
    kept = [group for group in optimizer.param_groups if group['params']]
    optimizer.param_groups[:] = kept
    optimizer.add_param_group({
        'params': list(steps.values()), 'lr': optimizer.defaults['lr'] * learned[0].lr_mult,
        'weight_decay': 0.0, MARK: True})
