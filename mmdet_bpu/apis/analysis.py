"""Where a quantized model loses accuracy, and which dtypes are worth what they cost."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any, Dict, List, MutableMapping, Optional, Tuple, Union

from mmengine.config import Config
from torch import nn

from mmdet_bpu.analysis.detector_loss import label_by_detections
from mmdet_bpu.analysis.search import Search
from mmdet_bpu.analysis.measurement_cache import MeasurementCache, digest, digest_of_file
from mmdet_bpu.analysis.search_result import Bound, SearchResult
from mmdet_bpu.analysis.search_space import SearchSpace
from mmdet_bpu.analysis.sensitivity import measure_sensitivity
from mmdet_bpu.analysis.sensitivity_result import Sensitivity
from mmdet_bpu.apis.models import deployable_detector, load_quantized, settings_of
from mmdet_bpu.compiler.estimate import COST_MODEL_VERSION
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.engine.labelled_images import LabelledImages
from mmdet_bpu.engine.prepared import calibrate_again
from mmdet_bpu.engine.validation import Validation
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import require_folder
from mmdet_bpu.quantization import set_quant_state
from mmdet_bpu.quantization.saved_statistics import SavedStatistics
from mmdet_bpu.quantization.scale_choice import ScaleChoice
from mmdet_bpu.version import __version__

PIXELS = 1 << 18
"""Of a batch: small pictures are put together, more than one batch has a standard error."""
MOST_IMAGES = 192
ANNOTATIONS, DETECTIONS = 'annotations', 'detections of the float model'


def sensitivity(cfg: Config, checkpoint: str, images: int = MOST_IMAGES,
                first_order_images: int = 256, tensors: str = '*',
                work_dir: Optional[Union[str, Path]] = None) -> Sensitivity:
    """What every tensor of a calibrated detector costs when it alone is quantized.

    Args:
        cfg (Config): Of the calibration; its validation images are used. Where they have no labels,
            what the float model detects takes their place.
        checkpoint (str): Of stage calibration, with its statistics.
        images (int): On which tensors are measured at most; whole batches are taken, two at least.
            Defaults to :data:`MOST_IMAGES`.
        first_order_images (int): Of the first-order changes, the others included. Defaults to 256.
        tensors (str): Only those whose name this glob matches. Defaults to all.
        work_dir (str | Path, optional): Folder in which what was measured is kept; an analysis that
            was cut goes on. Defaults to none.

    Raises:
        BpuError: The checkpoint is of another stage or model or holds no statistics, or there are
            no images, or no such tensors.
    """
    _require_positive(images=images, first_order_images=first_order_images)
    if work_dir is not None:
        require_folder(work_dir, 'parameter work_dir')
    model, choice = load_with_statistics(cfg, checkpoint)
    return _sensitivity(cfg, checkpoint, model, choice, images, first_order_images, tensors,
                        work_dir)


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


def _require_positive(**parameters: int) -> None:
    for name, value in parameters.items():
        if value < 1:
            raise BpuError(f'parameter {name}: expected a positive number, found {value}')


def _measured_on(cfg: Config, checkpoint: str) -> Dict[str, Any]:
    """What measurements of a checkpoint depend on."""
    return dict(checkpoint=digest_of_file(checkpoint), version=__version__,
                config=digest({name: cfg.get(name) for name in (
                    'model', 'bpu', 'val_dataloader', 'val_evaluator')}))


def _sensitivity(cfg: Config, checkpoint: str, model: nn.Module, choice: ScaleChoice, images: int,
                 first_order_images: int, tensors: str = '*',
                 work_dir: Optional[Union[str, Path]] = None) -> Sensitivity:
    known: Optional[MutableMapping] = None
    if work_dir is not None:
        known = MeasurementCache(Path(work_dir) / 'sensitivity_cache.json', dict(
            _measured_on(cfg, checkpoint), images=[images, first_order_images]))
    pictures = LabelledImages(cfg)
    chosen = pictures.spread(max(images, first_order_images))
    size = max(pictures.batch_size, min(PIXELS // prod(cfg.bpu.input_shape), -(-images // 2)))
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
                               ANNOTATIONS if labelled else DETECTIONS, tensors, known)


def search(cfg: Config, checkpoint: str, work_dir: Union[str, Path], bound: Bound,
           march: Optional[str] = None, evaluations: int = 24, seed: int = 0,
           images: int = MOST_IMAGES,
           first_order_images: int = 256) -> SearchResult:
    """Search the dtypes of a calibrated detector's tensors.

    Args:
        cfg (Config): Of the calibration; mAP is measured on its validation images.
        checkpoint (str): Of stage calibration, with its statistics, from which all scales come.
        work_dir (str | Path): Folder in which what was measured is kept; a search that was cut
            goes on.
        bound (Bound): What the setting has to keep; without one, the template's mAP.
        march (str, optional): Defaults to ``bpu.march``.
        evaluations (int): Most settings whose mAP is measured. Defaults to 24.
        seed (int): Of the refinement.
        images (int), first_order_images (int): See :func:`sensitivity`.

    Raises:
        BpuError: As there; or the config has nothing to measure mAP by. A bound that cannot be
            kept is in the result.
    """
    _require_positive(images=images, first_order_images=first_order_images, evaluations=evaluations)
    require_folder(work_dir, 'parameter work_dir')
    model, choice = load_with_statistics(cfg, checkpoint)
    settings = settings_of(cfg)
    march = get_march(march or settings['march'])
    known = MeasurementCache(Path(work_dir) / 'search_cache.json', dict(
        _measured_on(cfg, checkpoint), cost_model=COST_MODEL_VERSION, march=march.name,
        figures=digest({name: asdict(figure) for name, figure in march.figures().items()})))
    validation = Validation(cfg, model)
    loaded = read_checkpoint(checkpoint)

    def measure_map(rules: List[dict]) -> float:
        changed = dict(settings, qconfig=rules)
        quantized = calibrate_again(deployable_detector(cfg, settings), changed, loaded, checkpoint,
                                    loaded, checkpoint)
        set_quant_state(quantized, 'quantize')
        return validation.mean_average_precision(quantized.eval())

    space = SearchSpace(model, choice, settings.get('qconfig') or [])
    costs = _sensitivity(cfg, checkpoint, model, choice, images, first_order_images,
                         work_dir=work_dir)
    return Search(space, costs, measure_map, march.name, evaluations, seed, known).run(bound)
