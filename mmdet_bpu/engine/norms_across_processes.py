"""Batch norms that share statistics across processes, which torch computes on accelerators alone."""
from typing import List, Optional

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_bpu.errors import BpuError
from mmdet_bpu.models.plain_norms import SYNCHRONIZED


def shared_norms(model: nn.Module, sync_bn: Optional[str]) -> List[str]:
    """Paths of the norms that a run in several processes is to synchronise.

    Args:
        model (nn.Module): A detector as its config builds it.
        sync_bn (str, optional): The config's ``sync_bn``: all batch norms are exchanged.
    """
    kinds = SYNCHRONIZED if sync_bn is None else _BatchNorm
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def refuse_training(model: nn.Module, paths: List[str]) -> None:
    """Refuse to train such norms without what synchronises them; frozen ones are as any other.

    Raises:
        BpuError: One of ``paths`` computes statistics in training.
    """
    model.train()
    trained = [path for path in paths if model.get_submodule(path).training]
    if trained:
        raise BpuError(f'{len(trained)} batch norms, the first is {trained[0]}, are to share '
                       'statistics across processes, which torch does on accelerators alone: train '
                       "in one process, with norm_cfg of type 'BN' (and no sync_bn), or freeze "
                       'them with norm_eval=True')
