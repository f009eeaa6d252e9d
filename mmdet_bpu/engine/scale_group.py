"""The optimizer's own groups for learned scales, of activations and of weights."""
from typing import Any

from mmengine.optim import OptimWrapper
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.quantization.trained_scales import learned_scales

MARK = 'bpu_scales'
"""Key of such a group."""


def group_scales(optim_wrapper: Any, model: nn.Module) -> None:
    """Take learned scales out of the groups that a config made and give them groups of their own, in place.

    Their rate is that of the first group times their ``lr_mult``, and nothing decays. Schedulers, which are
    built after, treat them as the others.

    Args:
        optim_wrapper (OptimWrapper): Of the run, built.
        model (nn.Module): The prepared detector, wrapped or not.

    Raises:
        BpuError: There are several optimizers.
    """
    quant = quantization_of(model)
    learned = learned_scales(quant)
    rates = [(learned[0].lr_mult, [each.step for each in learned])] if learned else []
    of_reach = list(quant.reach.steps())
    if of_reach:
        rates.append((quant.reach.lr_mult, of_reach))
    if not rates:
        return
    if not isinstance(optim_wrapper, OptimWrapper):
        raise BpuError("fields bpu.qat.scales and weight_reach: 'learned' needs one optimizer, found "
                       f'{type(optim_wrapper).__name__}')
    optimizer = optim_wrapper.optimizer
    if any(MARK in group for group in optimizer.param_groups):
        return  # a resumed run asks twice
    steps = {id(step) for _, of_rate in rates for step in of_rate}
    for group in optimizer.param_groups:
        group['params'] = [p for p in group['params'] if id(p) not in steps]
    kept = [group for group in optimizer.param_groups if group['params']]
    optimizer.param_groups[:] = kept
    for lr_mult, of_rate in rates:
        optimizer.add_param_group({'params': of_rate, 'lr': optimizer.defaults['lr'] * lr_mult,
                                   'weight_decay': 0.0, MARK: True})
