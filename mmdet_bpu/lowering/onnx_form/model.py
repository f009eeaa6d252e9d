"""The ONNX model of a quantized graph: QDQ, opset 21, static shapes, the contract in its metadata."""
import json
from typing import Optional, Type

import onnx
import torch
from onnx import TensorProto, helper

import mmdet_bpu.lowering.onnx_form.elementwise  # noqa: F401  (the forms register themselves)
import mmdet_bpu.lowering.onnx_form.movement  # noqa: F401
import mmdet_bpu.lowering.onnx_form.products  # noqa: F401
import mmdet_bpu.lowering.onnx_form.selection  # noqa: F401
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import OpGraph
from mmdet_bpu.graph.quantized_graph import QuantizedGraph, Scales
from mmdet_bpu.lowering.onnx_form.rules import FORMS
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter
from mmdet_bpu.version import __version__

OPSET = 21  # the first that quantizes to int16
IR_VERSION = 10
CONTRACT = 'mmdet_bpu.contract'
"""Key of the deployment contract among the model's metadata."""
ELEMENTS = {torch.float32: TensorProto.FLOAT, torch.bool: TensorProto.BOOL}


def write_graph(graph: OpGraph, scales: Optional[Scales] = None,
                writer: Type[OnnxWriter] = OnnxWriter) -> OnnxWriter:
    """Write all nodes of a graph.

    Args:
        graph (OpGraph): What is written.
        scales (Scales, optional): Of its values. Defaults to None: a float model.
        writer (type): Class that writes. Defaults to :class:`OnnxWriter`.

    Raises:
        BpuError: An op without an ONNX form; its site is named.
    """
    made = writer(graph, scales)
    for op in graph.ops:
        if op.kind not in FORMS:
            raise BpuError(f'{op.site}: no ONNX form of {op.kind}')
        made.values[op.output] = made.quantized(op.output, FORMS[op.kind](made, op))
    return made


def model_of(network: QuantizedGraph, metadata: Optional[dict] = None,
             as_float: bool = False) -> onnx.ModelProto:
    """The model.

    Args:
        network (QuantizedGraph): With scales.
        metadata (dict, optional): The deployment contract, kept as JSON.
        as_float (bool): Leave quantizers out. Defaults to False.

    Raises:
        BpuError: A quantizer was never calibrated, or an op has no ONNX form (site named).
    """
    if not as_float:
        for row in network.rows:
            if row['dtype'] != 'int32' and not row['calibrated']:
                raise BpuError(f'{row["quantizer"]} has no scale: the checkpoint is not calibrated')
    graph = network.graph
    writer = write_graph(graph, None if as_float else network.scales)
    for value, public in zip(graph.outputs, graph.output_names):
        writer.nodes.append(helper.make_node('Identity', [writer.values[value]], [public],
                                             name=f'{public}/output'))
    proto = helper.make_graph(
        writer.nodes, 'detector', [_info(graph, name, name) for name in graph.inputs],
        [_info(graph, *pair) for pair in zip(graph.outputs, graph.output_names)], writer.initializers)
    model = helper.make_model(proto, producer_name='mmdet_bpu', producer_version=__version__,
                              opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION)
    if metadata is not None:
        helper.set_model_props(model, {CONTRACT: json.dumps(metadata)})
    return model


def _info(graph: OpGraph, value: str, name: str) -> onnx.ValueInfoProto:
    info = graph.values[value]
    return helper.make_tensor_value_info(name, ELEMENTS.get(info.dtype, TensorProto.INT64),
                                         list(info.shape))
