"""Synchronised and frozen batch norms as plain ones: one call of one function, in one process.

torch's synchronised norm does not run on a CPU, and mmengine's own exchange follows no norm that is
shared by several modules.
"""
from typing import Dict, Tuple

from mmcv.ops import SyncBatchNorm
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


SYNCHRONIZED: Tuple[type, ...] = (nn.SyncBatchNorm, SyncBatchNorm)
# Not called as a plain one: across processes, or in other functions where gradients flow.
EXCHANGED = {**dict.fromkeys(SYNCHRONIZED, PlainNorm), FrozenBatchNorm2d: FrozenNorm}


def plain_norm(norm: nn.Module) -> PlainNorm:
    """The same function with the same parameters and statistics, as one call of ``batch_norm``.

    Parameters stay the same objects. A frozen norm holds its weights as buffers: they become
    parameters that are not trained.
    """
    options = {name: getattr(norm, name) for name in ('momentum', 'affine', 'track_running_stats')
               if hasattr(norm, name)}
    cls = next(plain for kind, plain in EXCHANGED.items() if isinstance(norm, kind))
    plain = cls(norm.num_features, norm.eps, **options)
    held = [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]
    for name, tensor in held:
        if name in plain._parameters and not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        setattr(plain, name, tensor)
    if held:
        plain.to(held[0][1].device)  # a count that a frozen norm has not
    return plain.train(norm.training)


def open_norms(model: nn.Module, kinds: Tuple[type, ...] = tuple(EXCHANGED)) -> None:
    """Exchange the norms of ``model`` that are called as others than plain ones, in place.

    A norm that is shared by several modules stays shared. Names in the state dict are the same,
    with ``num_batches_tracked`` beside them where a frozen norm was.

    Args:
        model (nn.Module): Holds norms.
        kinds (tuple[type]): Their classes. Defaults to all of :data:`EXCHANGED`.
    """
    made: Dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):  # twice where a module has two names
            if isinstance(module, kinds):  # mmengine's is a subclass of torch's
                if module not in made:
                    made[module] = plain_norm(module)
                setattr(parent, name, made[module])
