"""Images of a config with their labels, as the deployed model gets them, batch by batch."""
import copy
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import nn

from mmdet_bpu.engine.config_errors import present_files
from mmdet_bpu.families.config_reading import innermost, type_name
from mmdet_bpu.errors import BpuError

LABELS = dict(type='LoadAnnotations', with_bbox=True)


class LabelledImages:
    """The images of one dataloader of a completed config, in the validation transforms, with boxes.

    Args:
        cfg (Config): See :func:`mmdet_bpu.engine.stages.complete_config`.
        field (str): Whose data set. Defaults to ``'val_dataloader'``.

    Raises:
        BpuError: The config has none, its files are absent, or it holds no image.
    """

    def __init__(self, cfg: Config, field: str = 'val_dataloader') -> None:
        if cfg.get(field) is None:
            raise BpuError(f'field {field}: expected images to measure on, found none')
        dataset = copy.deepcopy(cfg[field].dataset)
        inner = innermost(dataset)
        if inner.get('pipeline') is None:
            raise BpuError(f'field {field}.dataset: expected a pipeline, found none')
        inner.pipeline = with_labels(inner.pipeline)
        with present_files(field):
            self.dataset = DATASETS.build(dataset)
            if hasattr(self.dataset, 'full_init'):
                self.dataset.full_init()
        self.batch_size = int(cfg[field].get('batch_size') or 1)
        if not len(self.dataset):
            raise BpuError(f'field {field}: expected images to measure on, found none in it')

    def spread(self, count: Optional[int]) -> List[int]:
        """Indices of ``count`` images, evenly over the data set; of all for None."""
        total = len(self.dataset)
        if count is None or count >= total:
            return list(range(total))
        return np.linspace(0, total, count, endpoint=False).astype(int).tolist()

    def batches(self, model: nn.Module, indices: Sequence[int],
                size: Optional[int] = None) -> Iterator[Dict[str, Any]]:
        """Batches of images, normalised by the detector's preprocessor.

        Args:
            model (nn.Module): Its ``data_preprocessor`` is used.
            indices (Sequence[int]): Which images, in which order.
            size (int, optional): Images of a batch. Defaults to the dataloader's.

        Yields:
            dict: ``inputs`` (N, C, H, W) and ``data_samples``.
        """
        size = size or self.batch_size
        for start in range(0, len(indices), size):
            items = [self.dataset[index] for index in indices[start:start + size]]
            yield model.data_preprocessor(pseudo_collate(items), False)


def with_labels(pipeline: Sequence[dict]) -> List[dict]:
    """A pipeline whose boxes are read right behind the picture, and so resized with it."""
    rest = [step for step in pipeline if type_name(step) != 'LoadAnnotations']
    first = next((index for index, step in enumerate(rest)
                  if type_name(step).startswith('Load')), -1)
    return [*rest[:first + 1], copy.deepcopy(LABELS), *rest[first + 1:]]
