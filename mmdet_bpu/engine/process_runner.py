"""Runs in several processes without an accelerator, which mmengine's runner does not expect."""
from typing import Dict, Optional, Sequence

import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmdet_bpu.engine.norms_across_processes import refuse_training, shared_norms
from mmdet_bpu.models.plain_norms import SYNCHRONIZED, open_norms


class ProcessRunner(Runner):
    """mmengine's runner, also for several processes on CPUs.

    Attributes:
        folds_norms (bool): Whether batch norms are folded, so that none is left to synchronise.
    """

    folds_norms = False
    _shared_norms: Sequence[str] = ()

    @property
    def on_cpus(self) -> bool:
        """bool: Several processes on CPUs."""
        return self.distributed and get_device() == 'cpu'

    def setup_env(self, env_cfg: Dict) -> None:
        """As in mmengine; without an accelerator by gloo.

        mmengine's own start sets a CUDA device first, which fails there.
        """
        if self.on_cpus and not is_distributed():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def open_synchronized_norms(self, model: nn.Module) -> None:
        """Exchange synchronised norms for plain ones where nothing synchronises them, in place."""
        if self.on_cpus:
            self._shared_norms = shared_norms(model, self.cfg.get('sync_bn'))
        if self.folds_norms or not self.distributed or self.on_cpus:
            open_norms(model, SYNCHRONIZED)

    def wrap_model(self, model_wrapper_cfg: Optional[Dict], model: nn.Module) -> nn.Module:
        """As in mmengine; on CPUs, DDP gets no device ids, which it refuses there."""
        if self.on_cpus or self.folds_norms:
            self.cfg.sync_bn = None
        if self.on_cpus and not is_model_wrapper(model):
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}))
            model_wrapper_cfg['device_ids'] = None
        return super().wrap_model(model_wrapper_cfg, model)

    def train(self) -> nn.Module:
        """As in mmengine.

        Raises:
            BpuError: A norm that trains is to be synchronised across CPUs.
        """
        if self._shared_norms and not self.folds_norms:
            refuse_training(self.model.module if is_model_wrapper(self.model) else self.model,
                            self._shared_norms)
        return super().train()
