"""The loss of a detector as a measure: the same for the same images, whatever ran before."""
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import tensors_of

BY_CHANCE = ('Dropout', 'DropPath', 'DropBlock')
PSEUDO_SCORE = 0.3
"""Detections of the float model from this score on are labels where there are none."""


@contextmanager
def as_in_training(model: nn.Module, training: bool = True) -> Iterator[None]:
    """Inside, losses can be had: modules train, but for what is left to chance or counts batches.

    Args:
        model (nn.Module): A detector.
        training (bool): False for the contrary: everything as in prediction. Defaults to True.
    """
    before = {module: module.training for module in model.modules()}
    for module in model.modules():
        chance = any(name in type(module).__name__ for name in BY_CHANCE)
        module.training = training and not chance and not isinstance(module, _BatchNorm)
    try:
        yield
    finally:
        for module, was in before.items():
            module.training = was


@torch.no_grad()
def loss_and_outputs(model: nn.Module, batch: Dict[str, Any],
                     seed: int = 0) -> Tuple[float, List[Tensor]]:
    """Sum of all losses of a batch, and the deployed outputs of the head.

    What a detector draws by chance (denoising queries) is drawn from ``seed``.

    Args:
        model (nn.Module): :func:`as_in_training`.
        batch (dict): ``inputs`` (N, C, H, W), normalised, and ``data_samples`` with labels.
        seed (int): Of torch's generator.
    """
    family, outputs = FAMILIES.of(model), []
    watch = model.bbox_head.register_forward_hook(
        lambda module, inputs, result: outputs.append(result))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            losses = model(batch['inputs'], batch['data_samples'], mode='loss')
    finally:
        watch.remove()
    total, _ = model.parse_losses(losses)
    return total.item(), tensors_of(family.deployed(outputs[0])) if outputs else []


@contextmanager
def given_features(model: nn.Module, features: Optional[Any]) -> Iterator[None]:
    """Inside, backbone and neck are not run again; with None they are."""
    if features is None:
        yield
        return
    model.extract_feat = lambda *args, **kwargs: features
    try:
        yield
    finally:
        del model.extract_feat


@torch.no_grad()
def label_by_detections(model: nn.Module, batch: Dict[str, Any]) -> None:
    """Give the samples of a batch what the float model detects as their labels, in place."""
    samples = [sample.clone() for sample in batch['data_samples']]
    for sample in samples:  # boxes of the network's input, not of the picture
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0), ori_shape=sample.img_shape))
    with as_in_training(model, False):
        detected = model(batch['inputs'], samples, mode='predict')
    for sample, found in zip(batch['data_samples'], detected):
        label(sample, found)


def label(sample: DetDataSample, detected: DetDataSample) -> None:
    """Labels of one sample from detections."""
    found = detected.pred_instances
    found = found[found.scores >= PSEUDO_SCORE]
    sample.gt_instances = InstanceData(bboxes=found.bboxes, labels=found.labels)
    sample.ignored_instances = InstanceData(
        bboxes=found.bboxes[:0], labels=found.labels[:0])
