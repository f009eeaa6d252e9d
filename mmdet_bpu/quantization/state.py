"""A prepared detector's quantization as it is now: states, scales, the quantized graph with them."""
from copy import copy
from dataclasses import replace
from math import prod
from typing import Any, Dict, Iterator, List, Mapping, Tuple, Union

import torch
from torch import nn

from mmdet_bpu.compat import installed_version
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import capture_detector, deployed_part
from mmdet_bpu.graph.opgraph import OpGraph
from mmdet_bpu.graph.quantized_graph import QuantizedGraph, Role
from mmdet_bpu.graph.saved_graph import to_plain
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState
from mmdet_bpu.quantization.norm_states import folded_twin
from mmdet_bpu.quantization.quantized_detector import Quantization, public_name

STRUCTURAL_PACKAGES = ('mmdet', 'mmcv')
INPUT_STAGE = ('input_shape', 'input_format', 'resize')

NOT_FINITE = ('the float model computes no numbers there; check its weights (training may have '
              'diverged: take an earlier checkpoint) and data_preprocessor.mean and std')


def input_stage(bpu: Mapping[str, Any]) -> Dict[str, Any]:
    """The settings that say what the network's input is."""
    return {name: dict(bpu[name]) if isinstance(bpu[name], Mapping) else bpu[name]
            for name in INPUT_STAGE if bpu.get(name) is not None}


def package_versions() -> Dict[str, str]:
    """Versions of the packages whose code a capture runs through."""
    return {name: installed_version(name) for name in STRUCTURAL_PACKAGES}


def quantization_of(model: nn.Module) -> Quantization:
    """The quantization of a prepared detector, looked up through wrappers (DDP, EMA)."""
    return _prepared(model).quant


def _prepared(model: nn.Module) -> nn.Module:
    inner = model
    while not hasattr(inner, 'quant') and hasattr(inner, 'module'):
        inner = inner.module
    if not isinstance(getattr(inner, 'quant', None), Quantization):
        raise BpuError(f'{type(inner).__name__} is a float model; call prepare() first')
    return inner


def set_quant_state(model: nn.Module, state: Union[str, QuantState]) -> None:
    """Switch all fake quantizers: ``off``, ``observe``, ``quantize`` or ``both``.

    Raises:
        BpuError: Another state.
    """
    quantization_of(model).set_state(state)


@torch.no_grad()
def finish_calibration(model: nn.Module) -> None:
    """Turn what was observed into scales, the same on all ranks.

    Raises:
        BpuError: A quantizer has seen nothing, or NaN, or nothing finite; the message names its
            site, the first in the order of the network.
    """
    quant = quantization_of(model)
    for quantizer in quant.quantizers.values():
        quantizer.reduce()
    quant.statistics = {public_name(key): quantizer.statistics.as_plain()
                        for key, quantizer in quant.quantizers.items()
                        if quantizer.statistics is not None}
    for quantizer in quant.quantizers.values():
        quantizer.take_scale()
    try:
        _refuse_unobserved(quant)
    finally:
        for quantizer in quant.quantizers.values():
            quantizer.seen.zero_()
            quantizer.seen_nan.zero_()
    for network in quant.networks:
        for result, least in least_scales(network, quant):
            result.scale.clamp_(min=least)
        quant.reach.choose(network, _with_data_of(_prepared(model), network.graph))


def _refuse_unobserved(quant: Quantization) -> None:
    """Refuse a calibration that saw nothing somewhere, or what is no number."""
    named = {public_name(key): quantizer for key, quantizer in quant.quantizers.items()}
    sites = [name for name, quantizer in named.items() if bool(quantizer.seen_nan)]
    if sites:
        others = f', and after it at {len(sites) - 1} more' if len(sites) > 1 else ''
        raise BpuError(f'calibration found NaN first at {sites[0]}{others}: {NOT_FINITE}')
    for name, quantizer in named.items():
        if quantizer.dtype == 'int32' or bool(quantizer.calibrated):
            continue
        if bool(quantizer.seen):
            raise BpuError(f'every value of {name} was infinite in calibration: {NOT_FINITE}')
        raise BpuError(f'{name} has seen no image: run calibration batches in state "observe" '
                       'first')


def least_scales(network: QuantizedGraph, quant: Quantization) -> Iterator[Tuple[FakeQuantizer, float]]:
    """Quantizers of sums and means, and the scale of the grid that their exact results lie on.

    A mean of what was centred before is nothing but rounding, as its observed range is; on a scale
    of that size its integers would saturate at random.
    """
    placement = network.placement
    for op in network.graph.ops:
        if op.kind not in ('sum', 'mean') or placement.kinds[op.output] != Role.OWN:
            continue
        source, result = (quant.quantizer(network.name(placement.integers(value)))
                          for value in (op.inputs[0], op.output))
        if result.fixed or result.dtype == 'int32' or source.dtype == 'int32':
            continue
        count = prod(network.graph.values[op.inputs[0]].shape[d] for d in op.params['dims'])
        grid = source.scale * placement.scale_factor(op.inputs[0])
        yield result, (grid / (count if op.kind == 'mean' else 1)).item()


@torch.no_grad()
def quantized_graphs(model: nn.Module) -> List[QuantizedGraph]:
    """The networks of a prepared detector with its weights and scales as they are now.

    Constants that are parameters are read from the model. Those that were computed from
    parameters (a positional encoding that is learned) are computed anew where weights have changed
    since the detector was captured. Norms that are live are folded, as evaluation has them.

    Raises:
        BpuError: ``model`` is a float model.
    """
    detector = folded_twin(_prepared(model))
    quant = detector.quant

    def scale_of(name: str) -> tuple:
        quantizer = quant.quantizer(name)
        return quantizer.scale.item(), bool(quantizer.calibrated)

    networks = []
    for network in quant.networks:
        graph = network.graph
        if _holds_computed(graph) and quant.weights_changed(detector):
            graph = _computed_anew(detector, network)
        networks.append(replace(network, graph=_with_data_of(detector, graph))
                        .with_scales(scale_of, quant.reach.of))
    return networks


def _holds_computed(graph: OpGraph) -> bool:
    return any(info.learned and not info.origin for info in graph.values.values())


def _computed_anew(detector: nn.Module, network: QuantizedGraph) -> OpGraph:
    """The same graph with the constants that another capture finds at the same operands."""
    quant = detector.quant
    state = quant.state
    quant.set_state(QuantState.OFF)
    try:
        captured = capture_detector(detector, network.input_shape[2:])
        again = deployed_part(detector, captured)
    finally:
        quant.set_state(state)
    graph = copy(network.graph)
    graph.values = dict(graph.values)
    assert [op.site for op in again.ops] == [op.site for op in graph.ops]
    for op, twin in zip(graph.ops, again.ops):
        for name, other in zip(op.inputs, twin.inputs):
            info = graph.values[name]
            if info.learned and not info.origin:
                graph.values[name] = replace(info, data=again.values[other].data)
    return graph


def _with_data_of(detector: nn.Module, graph: OpGraph) -> OpGraph:
    """The same graph with the data of ``detector``'s own parameters and buffers."""
    owned = dict(detector.named_buffers())
    owned.update(detector.named_parameters())
    fresh = OpGraph()
    fresh.ops, fresh.inputs = graph.ops, graph.inputs
    fresh.outputs, fresh.output_names = graph.outputs, graph.output_names
    fresh.output_tree = graph.output_tree
    fresh.values = {
        name: replace(info, data=owned[info.origin].detach()) if info.origin else info
        for name, info in graph.values.items()
    }
    return fresh


def model_report(model: nn.Module) -> list:
    """Per-tensor rows with their scales as they are now; ``calibrated`` says if they count."""
    return [row for network in quantized_graphs(model) for row in network.rows]


def saved_form(model: nn.Module) -> Dict[str, Any]:
    """What a checkpoint keeps of a prepared detector's quantized graph."""
    quant = quantization_of(model)
    return to_plain(quant.networks, quant.folded, input_stage(quant.settings), package_versions())
