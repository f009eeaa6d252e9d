"""Make a float detector ready for calibration, QAT and export, in place."""
from dataclasses import dataclass, field
from typing import Dict, Optional, Set, Tuple

from torch import nn

from mmdet_bpu.collector import paused_collector
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.graph.deploy_graph import capture_detector, deployed_part, open_attention
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.graph.regions import enter_region_classes
from mmdet_bpu.graph.saved_graph import SavedGraph
from mmdet_bpu.quantization.denoising import count_queries
from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.fold import fold_captured, fold_named, require_pairs
from mmdet_bpu.quantization.fused.inner_sites import sites_inside
from mmdet_bpu.quantization.learned_reach import build_reach
from mmdet_bpu.quantization.live_norms import LiveNorm
from mmdet_bpu.quantization.norm_states import install, norms_live, trained_norms
from mmdet_bpu.quantization.observers import DEFAULT_OBSERVER
from mmdet_bpu.quantization.placement import place
from mmdet_bpu.quantization.plan import build_plan
from mmdet_bpu.quantization.qconfig import WHOLE, assign, weight_observers
from mmdet_bpu.quantization.quantized_detector import Quantization, QuantizedDetector
from mmdet_bpu.quantization.refusals import refuse_without_integer_form
from mmdet_bpu.quantization.repairs import repair
from mmdet_bpu.quantization.trained_scales import FIXED, build_quantizer
from mmdet_bpu.quantization.state import input_stage, package_versions


@dataclass
class KeptNorms:
    """Batch norms that were folded and can be live again.

    Attributes:
        norms (dict[str, LiveNorm]): Path of a convolution -> its norm as it was.
        trained (set[str]): Paths of the detector's norms whose statistics training updates.
    """
    norms: Dict[str, LiveNorm] = field(default_factory=dict)
    trained: Set[str] = field(default_factory=set)


def quantized_graph(model: nn.Module, bpu: dict,
                    kept: Optional[Dict[str, LiveNorm]] = None
                    ) -> Tuple[QuantizedGraph, CapturedGraph, list]:
    """Open attention, capture, fold batch norms and decide how each tensor is quantized.

    Args:
        model (nn.Module): A float mmdet detector; changed in place.
        bpu (dict): ``input_shape`` (height, width) in px, and ``qconfig`` rules.
        kept (dict, optional): See :func:`fold_captured`.

    Returns:
        tuple: The graph without scales, the captured graph, the folded (convolution, norm) pairs.
    """
    open_attention(model)
    captured = capture_detector(model, tuple(bpu['input_shape']))
    folded = fold_captured(model, captured, kept)
    graph = deployed_part(model, captured)
    placement = place(graph)
    rules = list(bpu.get('qconfig') or [])
    configs = assign(graph, placement, rules, model)
    refuse_without_integer_form(graph, placement, {
        value: config.dtype for value, config in configs.items()})
    default = (bpu.get('calibration') or {}).get('weight_observer', WHOLE)
    quantized = QuantizedGraph(graph, placement, configs, rules)
    quantized.weight_observers = weight_observers(quantized, model, default)
    return quantized, captured, folded


def fold_saved(model: nn.Module, saved: SavedGraph) -> KeptNorms:
    """Bring a stock detector to the structure whose weights a quantized checkpoint holds.

    Returns:
        KeptNorms: What was folded, with the numbers that the detector had.

    Raises:
        BpuError: The detector has not what the checkpoint folds; it stays as it is.
    """
    require_pairs(model, saved.folded, saved.path)
    trained = trained_norms(model)
    return KeptNorms(fold_named(model, saved.folded), trained)


@paused_collector()
def prepare(model: nn.Module, bpu: dict, saved: Optional[SavedGraph] = None,
            decide_again: bool = False, kept: Optional[KeptNorms] = None) -> nn.Module:
    """Insert fake quantizers, in place; the detector is captured once.

    Args:
        model (nn.Module): A float mmdet detector with its final weights; with ``saved``, folded by
            :func:`fold_saved` and with the checkpoint's weights.
        bpu (dict): ``input_shape`` (height, width) in px, ``qconfig`` rules, and
            ``calibration.observer`` (name or dict; :data:`DEFAULT_OBSERVER` by default), its other fields
            likewise; with ``stage`` 'qat' also ``qat.scales``, ``qat.weight_reach`` and ``qat.batch_norm``.
        saved (SavedGraph, optional): What the checkpoint says of its quantized graph; its
            decisions are taken over.
        decide_again (bool): Only the structure has to be the saved one; dtypes and observers are those
            of ``bpu``. Defaults to False.
        kept (KeptNorms, optional): Of a checkpoint whose folded norms ``bpu.qat.batch_norm`` may let be
            live. A ``saved`` detector without it stays folded.

    Returns:
        nn.Module: ``model``; its class is now a subclass of its stock class, and all that was
        added to its state dict is under ``quant.``, or beside a norm that can be live. None is yet.
        The state is ``'off'``.

    Raises:
        BpuError: The model is prepared already, cannot be captured, holds an op without an integer form
            (its site is named), a rule matches nothing, no norm can be live that is to be, or the
            structure is not the saved one (the first difference is named).
    """
    if hasattr(model, 'quant'):
        raise BpuError(f'{type(model).__name__} is prepared already')
    family = FAMILIES.of(model)
    regions, denoising = family.regions(model), family.denoising(model)
    with_norms = norms_live(bpu) and (saved is None or kept is not None)
    if kept is None:
        kept = KeptNorms(trained=trained_norms(model) if with_norms else set())
    network, captured, folded = quantized_graph(model, bpu, kept.norms)
    if saved is not None:
        saved.match([network], input_stage(bpu), package_versions(), not decide_again)
        folded = [tuple(pair) for pair in saved.folded]
    observer = (bpu.get('calibration') or {}).get('observer', DEFAULT_OBSERVER)
    qat = (bpu.get('qat') or {}) if bpu.get('stage') == 'qat' else {}
    quantizers: Dict[str, FakeQuantizer] = {}
    for value in network.own_values():
        name, config = network.name(value), network.configs[value]
        if name not in quantizers:
            quantizers[name] = build_quantizer(qat.get('scales', FIXED), config.dtype,
                                               config.observer or observer, config.scale)
    reach = build_reach(network, qat.get('weight_reach', FIXED))
    plan = build_plan(network, captured)
    quant = Quantization(plan, sites_inside(plan, captured), quantizers, [network], folded, dict(bpu),
                         reach)
    quant.norms = kept.norms
    model.add_module('quant', quant.to(device_of(model)))
    quant.remember_weights(model)
    if saved is None:  # else the weights have been
        repair(model, quant)
    if with_norms:
        install(model, kept.norms, kept.trained)
    enter_region_classes(model, regions, QuantizedDetector)
    count_queries(model, denoising)
    return model
