"""Metrics of a detector that is at hand, on a config's validation images, as often as one likes."""
import contextlib
import copy
import io
import logging
from typing import Dict, List, Optional

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import nn

from mmdet_bpu.engine.config_errors import present_files
from mmdet_bpu.errors import BpuError

MAP = 'mAP'


class Validation:
    """The validation images of a completed config, preprocessed once, and its evaluator.

    Args:
        cfg (Config): Its ``val_dataloader`` and ``val_evaluator`` are read.
        model (nn.Module): Its ``data_preprocessor`` is used.

    Raises:
        BpuError: The config lacks one of them, or their files are absent.
    """

    def __init__(self, cfg: Config, model: nn.Module) -> None:
        for field in ('val_dataloader', 'val_evaluator'):
            if cfg.get(field) is None:
                raise BpuError(f'field {field}: expected what mAP is measured by, found none')
        with present_files('val_dataloader'):
            loader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader), seed=0)
        self.size = len(loader.dataset)
        with present_files('val_evaluator'):
            self.evaluator = Evaluator(copy.deepcopy(cfg.val_evaluator))
        self.evaluator.dataset_meta = loader.dataset.metainfo
        self.batches: List[tuple] = [(batch, model.data_preprocessor(batch, False))
                                     for batch in loader]

    @torch.no_grad()
    def metrics(self, model: nn.Module) -> Dict[str, float]:
        """Metrics of ``model`` in evaluation mode; nothing is printed."""
        assert not model.training
        for raw, batch in self.batches:
            samples = [sample.clone() for sample in batch['data_samples']]
            found = model(batch['inputs'], samples, mode='predict')
            self.evaluator.process(data_samples=found, data_batch=raw)
        with contextlib.redirect_stdout(io.StringIO()), _quiet():
            return self.evaluator.evaluate(self.size)

    def mean_average_precision(self, model: nn.Module) -> float:
        """The mAP of ``model``.

        Raises:
            BpuError: The config's evaluator has no such metric, or nothing was found.
        """
        metrics = self.metrics(model)
        if not metrics:
            raise BpuError('the detector found no box on all images of val_dataloader, so there is no mAP: '
                           'train it longer, or lower model.test_cfg.score_thr')
        name: Optional[str] = next((name for name in metrics if name.endswith(MAP)), None)
        if name is None:
            raise BpuError('field val_evaluator: expected a metric that ends with mAP, found '
                           f'{", ".join(metrics)}')
        return metrics[name]


@contextlib.contextmanager
def _quiet():
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)
