"""Input shapes that a detector's backbone and neck can take.

A neck that joins a level with an enlarged one (``PAFPN`` of YOLOX and RTMDet) needs sides that every
stride divides. What fits is found by running it, so no stride is known here by name. Runs are on
torch's meta device: shapes without values, in no time.
"""
import copy
from typing import Any, Callable, List, Tuple

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import device_of, extraction_failure, input_channels
from mmdet_bpu.families.normalisation import pad_size_divisor

Shape = Tuple[int, int]

# Strides of the coarsest level that a detector may have; backbones halve.
STRIDES = (2, 4, 8, 16, 32, 64, 128, 256)
# A picture too small for the last level (SSD) is tried larger, in multiples of this many px.
LARGER = (1.5, 2, 3, 4)
ROUND = 32


def require_fitting_shape(model: nn.Module, shape: Shape) -> None:
    """Refuse an input shape that backbone and neck cannot take.

    Args:
        model (nn.Module): A float detector with ``extract_feat``; other models are let through.
        shape (tuple[int, int]): (height, width), px.

    Raises:
        BpuError: They cannot; the message names the next shapes that fit.
    """
    if not hasattr(model, 'extract_feat'):
        return
    channels = input_channels(model)
    shadow = copy.deepcopy(model).to('meta')
    # What the meta device cannot run (a branch on a value) is no fault of the shape.
    if extraction_failure(shadow, shape, channels) is None:
        _require_positions(shadow, shape, channels)
        return
    failure = extraction_failure(model, shape, channels)
    if failure is None:
        _require_positions(model, shape, channels)
        return
    next_ones = fitting_shapes(
        shape, lambda candidate: extraction_failure(shadow, candidate, channels) is None)
    if not next_ones:  # then it is not the shape: what runs next says what it is
        return
    neck = type(getattr(model, 'neck', None) or model).__name__
    raise BpuError(f'field bpu.input_shape: expected (height, width) that {neck} can take, found '
                   f'{tuple(shape)} ({failure}); the next that fit: '
                   f'{" and ".join(map(str, next_ones))}')


@torch.no_grad()
def _require_positions(model: nn.Module, shape: Shape, channels: int) -> None:
    """Refuse a shape that backbone and neck can take and the detector's family cannot."""
    head = getattr(model, 'bbox_head', None)
    family = None if head is None else FAMILIES.of_head(type(head))
    if family is not None:
        image = torch.zeros(1, channels, *shape, device=device_of(model))
        training = [module for module in model.modules() if module.training]
        model.eval()
        reason = family.refuse_shape(model, image)
        for module in training:
            module.training = True
        if reason:
            raise BpuError(f'field bpu.input_shape: {reason}')


def fitting_shapes(shape: Shape, fits: Callable[[Shape], bool]) -> List[Shape]:
    """The next smaller shape and the next larger one that fit, where there is one nearby.

    Args:
        shape (tuple[int, int]): (height, width) that does not fit, px.
        fits (Callable): Whether a shape does.
    """
    smaller = [tuple(side // stride * stride for side in shape) for stride in STRIDES]
    larger = [tuple(-(-side // stride) * stride for side in shape) for stride in STRIDES]
    larger += [tuple(int(-(-side * factor // ROUND)) * ROUND for side in shape)
               for factor in LARGER]
    found = (next((candidate for candidate in row if min(candidate) > 0 and fits(candidate)), None)
             for row in (smaller, larger))
    return [candidate for candidate in found if candidate is not None]


def shape_as_tested(cfg: Config, shape: Shape) -> Shape:
    """A test pipeline's size, padded as the data preprocessor pads it where the neck needs that.

    Args:
        cfg (Config): A config with a model and a data preprocessor.
        shape (tuple[int, int]): (height, width) that the test pipeline gives pictures, px.

    Returns:
        tuple[int, int]: ``shape``; where only its multiple of ``pad_size_divisor`` fits (HRFPN at
        800 x 1333), that one.
    """
    divisor = pad_size_divisor(cfg)
    padded = tuple(-(-side // divisor) * divisor for side in shape)
    if padded == tuple(shape):
        return shape
    try:
        trunk = _Trunk(cfg).to('meta')
    except Exception:  # building the whole model says what is wrong
        return shape
    channels = input_channels(trunk)
    if extraction_failure(trunk, shape, channels) is None:
        return shape
    return padded if extraction_failure(trunk, padded, channels) is None else shape


class _Trunk(nn.Module):
    """Backbone and neck of a config, without what may be costly to build behind them."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
            # Some modules write into the config that they are built from.
            parts = {name: MODELS.build(copy.deepcopy(cfg.model[name]))
                     for name in ('backbone', 'neck') if cfg.model.get(name) is not None}
        for name, part in parts.items():
            self.add_module(name, part)

    def extract_feat(self, image: torch.Tensor) -> Any:
        """Levels of ``image`` (N, C, H, W)."""
        for part in self.children():
            image = part(image)
        return image
