"""The QDQ model in another runtime: node by node, and from the image on.

Node by node every ``QuantizeLinear`` becomes an output, and what is behind its ``DequantizeLinear``
an input that is fed with the QAT model's values: no error is carried from one rounding to the next.
"""
from typing import Callable, Dict, List, Sequence, Tuple, Type

import numpy as np
import onnx
from onnx import TensorProto, helper

from mmdet_bpu.analysis.qat_roundings import Arrays, Roundings
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.lowering.onnx_form.model import IR_VERSION, OPSET, write_graph
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter

Session = Callable[[Dict[str, np.ndarray]], Sequence[np.ndarray]]
"""Inputs by name -> every output, in the order of the model."""
Runtime = Callable[[onnx.ModelProto], Session]
"""Opens a model."""
ELEMENTS = dict(int8=TensorProto.INT8, int16=TensorProto.INT16)


def onnx_runtime(model: onnx.ModelProto) -> Session:
    """ONNX Runtime on the CPU, its graph optimizations off."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           ['CPUExecutionProvider'])
    return lambda feeds: session.run(None, feeds)


class OnnxNodes:
    """A network's ONNX form with all its integers as outputs.

    Args:
        network (QuantizedGraph): With scales.
        runtime (Runtime): What runs it. Defaults to :func:`onnx_runtime`.
        writer (type): Class that writes it. Defaults to the one of exports.
    """

    def __init__(self, network: QuantizedGraph, runtime: Runtime = onnx_runtime,
                 writer: Type[OnnxWriter] = OnnxWriter) -> None:
        self._network, self._runtime = network, runtime
        self._writer = write_graph(network.graph, network.scales, writer)
        self._whole = {public: value for value, public in zip(
            network.graph.outputs, network.graph.output_names) if value not in self._writer.rounded}
        self._open: Dict[bool, Session] = {}

    def fed(self, roundings: Roundings) -> Tuple[Arrays, Arrays]:
        """Integers by value and outputs by public name, each rounding given QAT's values before it."""
        return self._run(roundings, True)

    def alone(self, roundings: Roundings) -> Tuple[Arrays, Arrays]:
        """The same from the image on."""
        return self._run(roundings, False)

    def _run(self, roundings: Roundings, fed: bool) -> Tuple[Arrays, Arrays]:
        if fed not in self._open:
            self._open[fed] = self._runtime(self.model(fed))
        writer = self._writer
        feeds = {name: roundings.image.numpy() for name in self._network.graph.inputs}
        if fed:
            feeds.update({writer.values[value]: roundings.real[value] for value in writer.rounded})
        results = list(self._open[fed](feeds))
        count = len(writer.rounded)
        return (dict(zip(writer.rounded, results[:count])), dict(zip(self._whole, results[count:])))

    def model(self, fed: bool) -> onnx.ModelProto:
        """The model: integers in the order of the network, then outputs that are not rounded.

        Args:
            fed (bool): Whether real values of all roundings are inputs beside the image.
        """
        graph, writer, scales = self._network.graph, self._writer, self._network.scales
        given = {writer.values[value]: value for value in writer.rounded} if fed else {}

        def info(name: str, value: str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, dtype, list(graph.values[value].shape))

        inputs = [info(name, value) for name, value in (
            *((name, name) for name in graph.inputs), *given.items())]
        outputs = [info(name, value, ELEMENTS[scales.own[value][0]])
                   for value, name in writer.rounded.items()]
        outputs += [info(writer.values[value], value) for value in self._whole.values()]
        nodes: List[onnx.NodeProto] = [
            node for node in writer.nodes if node.output[0] not in given]
        return helper.make_model(
            helper.make_graph(nodes, 'nodes', inputs, outputs, writer.initializers),
            opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION)
