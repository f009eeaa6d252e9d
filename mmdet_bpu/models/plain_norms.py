"""Synchronised and frozen batch norms as plain ones: one call of one function, in one process."""
from typing import Dict

import torch
from mmdet.models.layers import FrozenBatchNorm2d
from torch import Tensor, nn


class PlainNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of tensors of any rank that calls one function in one process."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class FrozenNorm(PlainNorm):
    """One that never trains."""

    def train(self, mode: bool = True) -> 'FrozenNorm':
        """Stay in eval mode."""
        return super().train(False)


# Not called as a plain one: across processes, or in other functions where gradients flow.
EXCHANGED = {nn.SyncBatchNorm: PlainNorm, FrozenBatchNorm2d: FrozenNorm}


@torch.no_grad()
def plain_norm(norm: nn.Module) -> PlainNorm:
    """The same function with the same parameters and statistics, as one call of ``batch_norm``."""
    options = {name: getattr(norm, name) for name in ('momentum', 'affine', 'track_running_stats')
               if hasattr(norm, name)}
    cls = EXCHANGED[type(norm)]
    plain = cls(norm.num_features, norm.eps, **options)
    state = norm.state_dict()
    plain.load_state_dict(state, strict=False)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(cls is not FrozenNorm and getattr(norm, name).requires_grad)
    device = next(iter(state.values())).device if state else None
    return plain.to(device).train(norm.training)


def open_norms(model: nn.Module) -> None:
    """Exchange the norms of ``model`` that are called as others than plain ones, in place."""
    made: Dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):  # twice where a module has two names
            if type(module) in EXCHANGED:
                made.setdefault(module, plain_norm(module))
                setattr(parent, name, made[module])
