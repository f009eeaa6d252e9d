"""Validation images as the deployed network gets them."""
from typing import Any, Iterator, Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet_bpu.engine.config_errors import present_files, refused_config
from mmdet_bpu.errors import BpuError


def val_loader(cfg: Config) -> DataLoader:
    """The dataloader of a completed config's validation data.

    Raises:
        BpuError: There is none, it cannot be built, or its files are absent.
    """
    if cfg.get('val_dataloader') is None:
        raise BpuError('field val_dataloader: expected the images to compare on, found none')
    return loader_of(cfg, 'val_dataloader')


def loader_of(cfg: Config, field: str) -> DataLoader:
    """The dataloader of a field that a completed config has.

    Raises:
        BpuError: It cannot be built, or its files are absent.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    with refused_config(cfg), present_files(field):
        return Runner.build_dataloader(cfg[field], seed=0)


def images_of(loader: DataLoader, detector: nn.Module, count: int) -> Iterator[Tuple[Tensor, Any]]:
    """The first ``count`` images with their data samples.

    Yields:
        tuple[Tensor, DetDataSample]: Normalised float32 image (C, H, W), and its metadata.
    """
    for batch in loader:
        batch = detector.data_preprocessor(batch, False)
        for image, sample in zip(batch['inputs'], batch['data_samples']):
            if count == 0:
                return
            count -= 1
            yield image, sample
