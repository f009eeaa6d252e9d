"""Batch norms that synchronise over processes become plain ones.

Their sites are captured and their statistics folded in one process, and torch's synchronised norm does
not run on a CPU. mmengine's own exchange gives a class that is no ``BatchNorm2d``, which is what
folding looks for.
"""
from typing import Dict, Optional

from mmcv.ops import SyncBatchNorm
from torch import nn

SYNCHRONIZED = (nn.SyncBatchNorm, SyncBatchNorm)


def plain_batch_norms(model: nn.Module) -> nn.Module:
    """Put a ``BatchNorm2d`` with the same parameters and buffers in the place of each.

    A norm that is shared by several modules stays shared. Names in the state dict are the same.

    Args:
        model (nn.Module): Changed in place.

    Returns:
        nn.Module: ``model``, or its replacement if it is such a norm itself.
    """
    exchanged: Dict[nn.Module, nn.Module] = {}
    # A module that holds a shared norm twice is listed with both names.
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, SYNCHRONIZED):
                setattr(parent, name, _exchange(child, exchanged))
    return _exchange(model, exchanged) if isinstance(model, SYNCHRONIZED) else model


def _exchange(norm: nn.Module, exchanged: Dict[nn.Module, nn.Module]) -> nn.Module:
    plain: Optional[nn.Module] = exchanged.get(norm)
    if plain is None:
        plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine,
                               norm.track_running_stats)
        for name, parameter in norm.named_parameters(recurse=False):
            setattr(plain, name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(plain, name, buffer)
        exchanged[norm] = plain.train(norm.training)
    return plain
