"""Batch norms that never train, as one call of one function."""
from typing import Dict

import torch
from mmdet.models.layers import FrozenBatchNorm2d
from torch import nn


class FrozenStatistics(nn.BatchNorm2d):
    """mmdet's ``FrozenBatchNorm2d`` as a batch norm that stays in eval mode.

    The stock module calls one function where gradients flow and others where they do not.
    """

    def train(self, mode: bool = True) -> 'FrozenStatistics':
        """Stay in eval mode."""
        return super().train(False)

    @classmethod
    @torch.no_grad()
    def of(cls, norm: FrozenBatchNorm2d) -> 'FrozenStatistics':
        """The same function with the same parameters."""
        plain = cls(norm.num_features, norm.eps).to(norm.weight)
        plain.load_state_dict(norm.state_dict(), strict=False)
        return plain.eval().requires_grad_(False)


def open_frozen_norms(model: nn.Module) -> None:
    """Put a :class:`FrozenStatistics` in the place of every frozen batch norm, in place."""
    made: Dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, FrozenBatchNorm2d):
                made.setdefault(module, FrozenStatistics.of(module))
                setattr(parent, name, made[module])
