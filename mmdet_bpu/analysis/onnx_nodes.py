"""The QDQ model node by node: what each rounding gives when its inputs are those of the QAT model.

Every ``QuantizeLinear`` becomes an output, and what is behind its ``DequantizeLinear`` an input, so
no error is carried from one rounding to the next. ONNX Runtime runs it with its graph optimizations
off.
"""
from dataclasses import dataclass, field
from typing import Dict, Iterable, List

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor

from mmdet_bpu.analysis.rounding_walk import RoundingWalk
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.layout import Order
from mmdet_bpu.lowering.hbir import Lowering
from mmdet_bpu.lowering.onnx_form.model import IR_VERSION, OPSET, write_graph


@dataclass
class NodeDifference:
    """One rounding over all images.

    Attributes:
        site (str), dtype (str): Of the tensor.
        elements (int): How many were compared.
        differing (int), beyond (int): Of these, how many differ, and by more than 1 LSB.
        largest (int): LSB.
    """
    site: str
    dtype: str
    elements: int = 0
    differing: int = 0
    beyond: int = 0
    largest: int = 0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Take in one image."""
        off = np.abs(found.astype(np.int64) - expected.astype(np.int64))
        self.elements += off.size
        self.differing += int((off > 0).sum())
        self.beyond += int((off > 1).sum())
        self.largest = max(self.largest, int(off.max(initial=0)))


@dataclass
class NodeComparison:
    """All roundings of a network.

    Attributes:
        nodes (list[NodeDifference]): In the order of the network.
        outputs (dict[str, float]): Output that is not rounded -> its largest difference over its largest
            magnitude.
    """
    nodes: List[NodeDifference]
    outputs: Dict[str, float] = field(default_factory=dict)

    def within(self, dtype: str) -> float:
        """Share of the elements of a dtype that differ by 1 LSB at most."""
        rows = [node for node in self.nodes if node.dtype == dtype]
        elements = sum(node.elements for node in rows)
        return 1 - sum(node.beyond for node in rows) / elements if elements else 1.0


class OnnxNodes:
    """Compares a network's ONNX form with its QAT model, rounding by rounding.

    Args:
        network (QuantizedGraph): With scales.
    """

    def __init__(self, network: QuantizedGraph) -> None:
        lowering = Lowering(network.graph, network.scales)
        self._walk = RoundingWalk(lowering.run())
        self._of_ssa = {stored.ssa: (name, stored.order) for name, stored in reversed(
            list(lowering.values.items())) if name in network.scales.own}
        self._network = network
        self._writer = write_graph(network.graph, network.scales)
        self._whole = [(value, public) for value, public in zip(
            network.graph.outputs, network.graph.output_names) if value not in self._writer.rounded]
        self._session = onnxruntime.InferenceSession(self._model().SerializeToString(), _plain())
        self.comparison = NodeComparison([
            NodeDifference(network.site_of(value), network.scales.own[value][0])
            for value in self._writer.rounded])
        self._nodes = dict(zip(self._writer.rounded, self.comparison.nodes))

    def _model(self) -> onnx.ModelProto:
        graph, writer = self._network.graph, self._writer
        given = {writer.values[value]: value for value in writer.rounded}
        nodes = [node for node in writer.nodes if node.output[0] not in given]
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(graph.values[value].shape))
                  for name, value in (*given.items(), *((name, name) for name in graph.inputs))]
        dtypes = dict(int8=TensorProto.INT8, int16=TensorProto.INT16)
        outputs = [helper.make_tensor_value_info(
            name, dtypes[self._network.scales.own[value][0]], list(graph.values[value].shape))
            for value, name in writer.rounded.items()]
        outputs += [helper.make_tensor_value_info(
            writer.values[value], TensorProto.FLOAT, list(graph.values[value].shape))
            for value, _ in self._whole]
        return helper.make_model(
            helper.make_graph(nodes, 'nodes', inputs, outputs, writer.initializers),
            opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION)

    def compare(self, images: Iterable[Tensor]) -> NodeComparison:
        """Compare on normalised images (1, C, H, W)."""
        for image in images:
            self._add(image)
        return self.comparison

    def _add(self, image: Tensor) -> None:
        rounded: Dict[str, Tensor] = {}

        def seen(number: int, as_float: Tensor, given: Tensor, out: Tensor) -> None:
            value, order = self._of_ssa[self._walk.roundings[number].results[0]]
            rounded[value] = _in_torch_order(out, order)

        _, outputs = self._walk.run(image.permute(0, 2, 3, 1), seen)
        writer, scales = self._writer, self._network.scales
        feeds = {name: image.numpy() for name in self._network.graph.inputs}
        feeds.update({writer.values[value]: rounded[value].numpy() for value in writer.rounded})
        names = [*writer.rounded.values(), *(writer.values[value] for value, _ in self._whole)]
        results = dict(zip(names, self._session.run(names, feeds)))
        for value, node in self._nodes.items():
            expected = torch.round(rounded[value] / torch.tensor(scales.own[value][1])).numpy()
            node.add(results[writer.rounded[value]], expected)
        for value, public in self._whole:
            expected = outputs[public].numpy()
            off = np.abs(results[writer.values[value]] - expected).max(initial=0)
            share = float(off / max(np.abs(expected).max(initial=0), 1e-30))
            known = self.comparison.outputs.get(public, 0.0)
            self.comparison.outputs[public] = max(known, share)


def _in_torch_order(stored: Tensor, order: Order) -> Tensor:
    """A tensor as torch has it, of one that is stored in ``order``."""
    return stored.permute([list(order).index(dim) for dim in range(len(order))]).contiguous()


def _plain() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
