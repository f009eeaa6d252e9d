"""The tensor path of an mmdet detector: from a normalised image to the raw head outputs.

This is what mmdet runs in ``mode='tensor'``, cut where losses and post-processing begin. It is
split in regions; a site's key starts at its region, so that it does not depend on whether loss,
prediction or capture called it.
"""
from typing import Dict, List, Tuple

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError

OUTPUT_NAMES = {2: ('cls_scores', 'bbox_preds'), 1: ('outputs', )}


def regions_of(model: nn.Module) -> Dict[str, Tuple[str, ...]]:
    """Methods that enclose the tensor path: sub-module path -> method names.

    Raises:
        BpuError: The model has no ``extract_feat`` or no ``bbox_head``.
    """
    if not hasattr(model, 'extract_feat') or not hasattr(model, 'bbox_head'):
        raise BpuError('expected an mmdet detector with extract_feat and bbox_head, found '
                       f'{type(model).__name__}')
    regions = {'': ('extract_feat', ), 'bbox_head': ('forward', )}
    if isinstance(model, DetectionTransformer):
        regions[''] = ('extract_feat', 'forward_transformer')
    return regions


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


def run_tensor_path(model: nn.Module, image: Tensor) -> Tuple[Tensor, ...]:
    """Raw outputs of the head for normalised images ``(N, 3, H, W)`` without padding.

    The last stage is ``bbox_head.forward``, so all decoder layers' outputs are there.
    """
    samples = example_samples(image.shape[0], tuple(image.shape[-2:]))
    features = model.extract_feat(image)
    if isinstance(model, DetectionTransformer):
        inputs = model.forward_transformer(features, samples)
        inputs = {k: v for k, v in inputs.items() if not k.startswith('enc_outputs')}
        outputs = model.bbox_head.forward(**inputs)
    else:
        outputs = model.bbox_head.forward(features)
    return flatten_outputs(outputs)


def flatten_outputs(outputs) -> Tuple[Tensor, ...]:
    """Head outputs (tensors in nested tuples and lists) as one flat tuple."""
    if isinstance(outputs, Tensor):
        return (outputs, )
    return tuple(leaf for part in outputs for leaf in flatten_outputs(part))


def is_stacked_by_layer(model: nn.Module) -> bool:
    """Whether head outputs hold one entry per decoder layer, of which the last is deployed."""
    return isinstance(model, DetectionTransformer)


def output_names(count: int) -> Tuple[str, ...]:
    """Names of the deployed outputs, in the order of the head."""
    return OUTPUT_NAMES.get(count) or tuple(f'output_{i}' for i in range(count))


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter."""
    return next(model.parameters()).device
