"""From a calibrated or trained detector to fake-quantized HBIR."""
import torch
from torch import nn
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.lowering.hbir import Scales, lower_graph
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization.fake_quant import constant_scale, weight_scale
from mmdet_bpu.quantization.prepare import QuantizedGraph, quantization_of


def collect_scales(quantized: QuantizedGraph, model: nn.Module) -> Scales:
    """Scales of all own values, constant operands and weights of a prepared detector.

    Raises:
        BpuError: A quantizer was never calibrated; the message names its site.
    """
    quant = quantization_of(model)
    graph, placement = quantized.graph, quantized.placement
    own = {}
    for value in placement.group:
        name, dtype = quantized.name(value), quantized.configs[value].dtype
        quantizer = quant.quantizer(name)
        if dtype != 'int32' and not bool(quantizer.calibrated):
            raise BpuError(f'{name} has no scale: the checkpoint is not calibrated')
        own[value] = (dtype, quantizer.scale.item())
    constants = {}
    for (output, index), joined in placement.constants.items():
        op = quantized.producers[output]
        if joined:
            constants[output, index] = own[joined]
            continue
        dtype = quantized.constant_dtype(op, index)
        data = graph.values[op.inputs[index]].data
        constants[output, index] = (dtype, constant_scale(data, dtype).item())
    weights = {
        op.output: ('int8', weight_scale(graph.values[op.inputs[1]].data).cpu().numpy())
        for op in graph.ops if KINDS[op.kind].weight is not None
    }
    fills = {op.output: quant.quantizer(quantized.name(placement.integers(op.output)))
             .on_grid(torch.tensor(op.params['fill']), placement.scale_factor(op.output)).item()
             for op in graph.ops if quantized.fills(op)}
    return Scales(own, constants, weights, fills)


@torch.no_grad()
def export_model(model: nn.Module) -> ModuleOp:
    """Fake-quantized HBIR of a prepared detector with its weights and scales as they are now.

    Args:
        model (nn.Module): Prepared and calibrated (see :func:`mmdet_bpu.quantization.prepare`).

    Raises:
        BpuError: Not prepared, not calibrated, or an op has no integer form (site named).
    """
    quant = quantization_of(model)
    state = quant.state
    quant.set_state('off')
    try:
        quantized = QuantizedGraph(model, quant.settings)
    finally:
        quant.set_state(state)
    return lower_graph(quantized.graph, collect_scales(quantized, model))
