"""The tensor path of an mmdet detector: from a normalised image to the raw head outputs.

This is what mmdet runs in ``mode='tensor'``, cut where losses and post-processing begin. It is
split in regions (:meth:`mmdet_bpu.families.base.Family.regions`); a site's key starts at its
region, so that it does not depend on whether loss, prediction or capture called it.
"""
from typing import List, Tuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import tensors_of

RGB = 3
FOCUS_CELLS = 4  # YOLOX's Focus makes channels of 2 x 2 pixels before the first convolution


def example_samples(batch: int, input_shape: Tuple[int, int]) -> List[DetDataSample]:
    """Data samples of ``batch`` images of (height, width) px without padding."""
    samples = []
    for _ in range(batch):
        meta = dict(
            img_shape=tuple(input_shape),
            batch_input_shape=tuple(input_shape),
            pad_shape=tuple(input_shape),
            ori_shape=tuple(input_shape),
            scale_factor=(1.0, 1.0))
        samples.append(DetDataSample(metainfo=meta))
    return samples


def run_tensor_path(model: nn.Module, image: Tensor) -> List[Tensor]:
    """Deployed outputs of a detector, in order, for normalised images ``(N, C, H, W)``."""
    family = FAMILIES.of(model)
    return tensors_of(family.deployed(family.run(model, image)))


def input_channels(model: nn.Module) -> int:
    """Channels of the image: what the backbone's first convolution reads, three without a backbone.

    The data preprocessor does not say: one mean may be meant for three channels.
    """
    cells = 1
    for module in getattr(model, 'backbone', nn.Module()).modules():
        if type(module).__name__ == 'Focus':
            cells = FOCUS_CELLS
        if isinstance(module, nn.Conv2d):
            return module.in_channels // cells
    return RGB


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter."""
    return next(model.parameters()).device
