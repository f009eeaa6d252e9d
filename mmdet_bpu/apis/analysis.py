"""Where a quantized model loses accuracy."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from typing import Any, Dict, List, Tuple

from mmengine.config import Config
from torch import nn

from mmdet_bpu.analysis.detector_loss import label_by_detections
from mmdet_bpu.analysis.sensitivity import Sensitivity, measure_sensitivity
from mmdet_bpu.apis.models import load_quantized
from mmdet_bpu.engine.labelled_images import LabelledImages
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import set_quant_state
from mmdet_bpu.quantization.saved_statistics import SavedStatistics
from mmdet_bpu.quantization.scale_choice import ScaleChoice

ANNOTATIONS, DETECTIONS = 'annotations', 'detections of the float model'


def sensitivity(cfg: Config, checkpoint: str, images: int = 32,
                first_order_images: int = 256, tensors: str = '*') -> Sensitivity:
    """What every tensor of a calibrated detector costs when it alone is quantized.

    Args:
        cfg (Config): Of the calibration; its validation images are used. Where they have no labels,
            what the float model detects takes their place.
        checkpoint (str): Of stage calibration, with its statistics.
        images (int): On which every tensor is measured; whole batches are taken. Defaults to 32.
        first_order_images (int): Of the first-order changes, the others included. Defaults to 256.
        tensors (str): Only those whose name this glob matches. Defaults to all.

    Raises:
        BpuError: The checkpoint is of another stage or model or holds no statistics, or there are
            no images, or no such tensors.
    """
    for name, value in dict(images=images, first_order_images=first_order_images).items():
        if value < 1:
            raise BpuError(f'parameter {name}: expected a positive number, found {value}')
    model, choice = load_with_statistics(cfg, checkpoint)
    pictures = LabelledImages(cfg)
    chosen = pictures.spread(max(images, first_order_images))
    size = pictures.batch_size
    batches = [chosen[start:start + size] for start in range(0, len(chosen), size)]
    measured = set(spread(len(batches), -(-images // size)))
    direct = [batch for index in sorted(measured)
              for batch in pictures.batches(model, batches[index])]
    rest = [i for index, indices in enumerate(batches) if index not in measured for i in indices]
    labelled = any(len(sample.gt_instances) for batch in direct
                   for sample in batch['data_samples'])

    def others():
        for batch in pictures.batches(model, rest):
            yield batch if labelled else _labelled(model, batch)

    if not labelled:
        direct = [_labelled(model, batch) for batch in direct]
    return measure_sensitivity(model, choice, direct, others(), len(rest),
                               ANNOTATIONS if labelled else DETECTIONS, tensors)


def load_with_statistics(cfg: Config, checkpoint: str) -> Tuple[nn.Module, ScaleChoice]:
    """A calibrated detector whose quantizers are off, and scales of any dtype for it.

    Raises:
        BpuError: The checkpoint is of another stage or model, or holds no statistics.
    """
    model = load_quantized(cfg, checkpoint)
    choice = ScaleChoice(model, SavedStatistics.of(read_checkpoint(checkpoint), checkpoint))
    set_quant_state(model, 'off')
    return model, choice


def spread(total: int, count: int) -> List[int]:
    """``count`` of ``total`` indices, or all, evenly."""
    count = min(count, total)
    return [index * total // count for index in range(count)]


def _labelled(model: nn.Module, batch: Dict[str, Any]) -> Dict[str, Any]:
    label_by_detections(model, batch)
    return batch
