"""A detector of a config with random weights, calibrated on noise, for benchmarks of speed."""
import copy
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn

from mmdet_bpu import apis
from mmdet_bpu.analysis.model_check import observe_random_image, set_random_weights
from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.quantization import prepare

CONFIG = Path(__file__).resolve().parent.parent / 'configs' / 'qat.py'
"""The stock R50 Deformable DETR."""


def build(config: str, shape: Sequence[int], device: str = 'cpu',
          options: Optional[Dict[str, Any]] = None) -> Tuple[Config, nn.Module]:
    """The config, with overrides by dotted key, and its float detector, with random weights."""
    cfg = load_config(config, None, {
        'bpu.calibration.observer': 'minmax', 'bpu.input_shape': tuple(shape),
        'model.backbone.init_cfg': None, **(options or {})})
    model = apis.build_detector(cfg)
    set_random_weights(model)
    return cfg, model.to(device)


def pair(config: str, shape: Sequence[int],
         device: str = 'cpu') -> Tuple[Dict[str, nn.Module], Dict[str, Config]]:
    """The stock float detector of an mmdet config and the same with its fake quantizers on.

    Both have the same random weights; the scales are those of one image of noise.

    Returns:
        tuple: Detectors and configs, each by ``float`` and ``qat``.
    """
    stock = Config(get_config(config)._cfg_dict.to_dict())
    stock.model.backbone.init_cfg = None
    cfg = load_config(config, 'qat', {'bpu.input_shape': tuple(shape),
                                      'model.backbone.init_cfg': None})
    model = apis.build_detector(cfg)
    floating = MODELS.build(copy.deepcopy(stock.model))
    set_random_weights(floating)
    model.load_state_dict(floating.state_dict())
    return (dict(float=floating.to(device), qat=calibrated(cfg, model.to(device))),
            dict(float=stock, qat=cfg))


def calibrated(cfg: Config, model: nn.Module) -> nn.Module:
    """``model``, prepared in place and calibrated on one image of noise; it quantizes."""
    prepare(model, apis.settings_of(cfg))
    observe_random_image(model)
    return model


def noise(model: nn.Module, batch: int, shape: Sequence[int]) -> torch.Tensor:
    """Normal noise as normalised pictures (N, 3, H, W), on the model's device."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    return torch.randn(batch, 3, *shape, generator=generator).to(device)


def annotated_samples(batch: int, shape: Sequence[int], device: str) -> List[DetDataSample]:
    """Samples with 8 random boxes of 10 classes each, for a training step."""
    boxes, classes = 8, 10
    generator = torch.Generator().manual_seed(0)
    samples = example_samples(batch, tuple(shape))
    height, width = shape
    for sample in samples:
        low = torch.rand(boxes, 2, generator=generator) * 0.6
        high = low + 0.05 + torch.rand(boxes, 2, generator=generator) * 0.3
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        sample.gt_instances = InstanceData(
            bboxes=(torch.cat([low, high], 1) * scale).to(device),
            labels=torch.randint(0, classes, (boxes,), generator=generator).to(device))
        sample.set_metainfo(dict(batch_input_shape=tuple(shape)))
    return samples
