"""Random states travel in the checkpoint."""
from typing import Dict, List, Optional

import torch
from mmengine.dist import all_gather, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmdet_bpu.engine.random_state import generator_states, set_generator_states

KEY = 'bpu_random_states'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Make each epoch's random numbers follow from the one before, in one run or resumed.

    States are taken when an epoch's training ends, or a validation within it begins, saved with the
    checkpoints of that moment, and set again at the next training iteration. What happens between
    (validation, the start of loader workers) draws from other states, so an uninterrupted run and
    one resumed from the checkpoint go on alike.

    A checkpoint saved inside an epoch holds the states of that moment, of the main process only.
    """

    # Before CheckpointHook (VERY_LOW), after all hooks that may draw at the end of an epoch.
    priority = 'LOW'

    def __init__(self) -> None:
        self._held: Optional[List[Dict[str, torch.Tensor]]] = None

    def after_train_epoch(self, runner) -> None:
        """Take the states of all processes."""
        self._held = _gather(generator_states())

    def before_val(self, runner) -> None:
        """Take the states of all processes, unless an epoch has just ended."""
        if self._held is None:
            self._held = _gather(generator_states())

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set the states that were taken."""
        if self._held is not None:
            rank = get_rank()
            if rank < len(self._held):
                set_generator_states(self._held[rank])
        self._held = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the states in the checkpoint."""
        checkpoint[KEY] = self._held or [generator_states()]

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember the states of the checkpoint that is resumed from."""
        self._held = checkpoint.get(KEY)


def _gather(states: Dict[str, torch.Tensor]) -> List[Dict[str, torch.Tensor]]:
    gathered = {name: all_gather(value.contiguous()) for name, value in states.items()}
    processes = len(next(iter(gathered.values())))
    return [{name: values[rank] for name, values in gathered.items()} for rank in range(processes)]
