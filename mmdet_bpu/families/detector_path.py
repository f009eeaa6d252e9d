"""The tensor path of an mmdet detector: from a normalised image to the raw head outputs.

This is what mmdet runs in ``mode='tensor'``, cut where losses and post-processing begin. It is
split in regions (:meth:`mmdet_bpu.families.base.Family.regions`); a site's key starts at its
region, so that it does not depend on whether loss, prediction or capture called it.
"""
import copy
from typing import List, Optional, Tuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import tensors_of

RGB = 3
PIXELS = 4  # 2 x 2 of them are channels of the first convolution behind YOLOX's Focus
PROBE = (256, 256)  # px; fits every stride


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
    """Channels of the image: those with which the backbone runs; three without a backbone.

    Its first convolution reads them, or four pixels of the image as channels (YOLOX's Focus). The
    data preprocessor does not say: one mean may be meant for three channels.

    Args:
        model (nn.Module): A float detector; runs are on a copy without values.
    """
    backbone = getattr(model, 'backbone', nn.Module())
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return RGB
    taken = first.in_channels
    if taken % PIXELS:
        return taken
    shadow = copy.deepcopy(model).to('meta')
    return next((channels for channels in (taken, taken // PIXELS)
                 if extraction_failure(shadow, PROBE, channels) is None), taken)


@torch.no_grad()
def extraction_failure(model: nn.Module, shape: Tuple[int, int], channels: int) -> Optional[str]:
    """Why backbone and neck cannot take an image, in one line; None if they can.

    Args:
        model (nn.Module): Has ``extract_feat``; it stays in the mode that it is in.
        shape (tuple[int, int]): (height, width), px.
        channels (int): Of the image.
    """
    image = torch.zeros(1, channels, *shape, device=device_of(model))
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        model.extract_feat(image)
    except Exception as error:  # whatever it is, it counts only if another image cures it
        return str(error).strip().partition('\n')[0] or type(error).__name__
    finally:
        for module in training:
            module.training = True
    return None


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter."""
    return next(model.parameters()).device
