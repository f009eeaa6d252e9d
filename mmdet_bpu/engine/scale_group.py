"""The optimizer's own groups for learned scales, of activations and of weights."""
from typing import Any, List, Mapping, Tuple

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
    rates = _rates(model)
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


def refuse_other_scales(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse to resume a run that has learned other scales than this one learns.

    Args:
        model (nn.Module): The prepared detector.
        checkpoint (dict): Of the run.
        path (str): Its file, for messages.

    Raises:
        BpuError: It has other groups of them.
    """
    groups = (checkpoint.get('optimizer') or {}).get('param_groups')
    if groups is None:
        return  # several optimizers, which learn none
    before = [len(group['params']) for group in groups if group.get(MARK)]
    now = [len(steps) for _, steps in _rates(model)]
    if before != now:
        raise BpuError(f'checkpoint {path} is of a run that learned {_counted(before)}, this one learns '
                       f'{_counted(now)}: resume it with the bpu.qat.scales and bpu.qat.weight_reach that '
                       'it was begun with, or give it as load_from without resume')


def _rates(model: nn.Module) -> List[Tuple[float, List[nn.Parameter]]]:
    """Rate over that of the weights, and steps, of each group that a detector has."""
    quant = quantization_of(model)
    learned, of_reach = learned_scales(quant), list(quant.reach.steps())
    rates = [(learned[0].lr_mult, [each.step for each in learned])] if learned else []
    return [*rates, (quant.reach.lr_mult, of_reach)] if of_reach else rates


def _counted(groups: List[int]) -> str:
    return f'{" and ".join(map(str, groups))} scales' if groups else 'no scales'
