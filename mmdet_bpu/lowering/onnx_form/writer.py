"""Values, constants and quantizers of an ONNX graph that is written node by node.

A tensor that is rounded to integers is followed by ``QuantizeLinear`` and ``DequantizeLinear`` of
zero point 0; weights and constant operands are integers with a ``DequantizeLinear``. Dimensions
keep torch's order.
"""
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import Scales
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged

NUMPY = {'int8': np.int8, 'int16': np.int16}
INT32_RANGE = 2**31 - 1


class OnnxWriter:
    """An ONNX graph on the way.

    Args:
        graph (OpGraph): What is written; its constants hold the weights.
        scales (Scales, optional): Of its values. Defaults to None: a float model.

    Attributes:
        values (dict[str, str]): Value of ``graph`` -> name of its tensor.
        nodes (list[NodeProto]), initializers (list[TensorProto]): What was written.
        rounded (dict[str, str]): Value -> name of its integers, where it has some.
    """

    def __init__(self, graph: OpGraph, scales: Optional[Scales] = None) -> None:
        self.graph, self.scales = graph, scales
        self.values: Dict[str, str] = {}
        self.rounded: Dict[str, str] = {}
        self.nodes: List[onnx.NodeProto] = []
        self.initializers: List[TensorProto] = []
        self._names: Dict[str, int] = {}
        self._constants: Dict[tuple, str] = {}
        for value in graph.inputs:
            self.values[value] = self.quantized(value, self.unique(value))

    def unique(self, name: str) -> str:
        """``name``, or with a number behind it if a tensor has it."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f'{name}_{count}' if count else name

    def node(self, kind: str, inputs: Sequence[str], name: str, outputs: int = 1,
             **attributes: Any) -> Any:
        """Append a node; the name of its result, or a list of several."""
        names = [self.unique(name) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: np.ndarray, name: str) -> str:
        """An initializer; the same content is kept once."""
        array = np.array(array, order='C')
        slot = (array.dtype.str, array.shape, array.tobytes())
        if slot not in self._constants:
            self._constants[slot] = self.unique(name)
            self.initializers.append(numpy_helper.from_array(array, self._constants[slot]))
        return self._constants[slot]

    def integers(self, values: Sequence[int], name: str) -> str:
        """An int64 initializer of one dimension: a shape, axes."""
        return self.constant(np.array(values, np.int64), name)

    def number(self, value: float, name: str) -> str:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32), name)

    # Quantization

    def quantized(self, value: str, tensor: str) -> str:
        """The tensor of a value behind its quantizer, if it has one."""
        dtype, scale = self.scales.own.get(value, ('', 0.0)) if self.scales else ('', 0.0)
        if dtype not in NUMPY:
            return tensor
        parameters = [self.number(scale, f'{tensor}/scale'), self._zero(dtype)]
        integers = self.node('QuantizeLinear', [tensor, *parameters], f'{tensor}/integers')
        self.rounded[value] = integers
        return self.node('DequantizeLinear', [integers, *parameters], f'{tensor}/rounded')

    def _zero(self, dtype: str) -> str:
        return self.constant(np.array(0, NUMPY[dtype]), f'zero_{dtype}')

    def _dequantized(self, data: np.ndarray, scale: np.ndarray, dtype: str, name: str,
                     axis: Optional[int] = None) -> str:
        """Float data as integers, behind a ``DequantizeLinear``."""
        shape = [1] * data.ndim
        if axis is not None:
            shape[axis] = -1
        scale = scale.astype(np.float32)
        integers = np.clip(np.rint(data / scale.reshape(shape)), *integer_range(dtype))
        attributes = {} if axis is None else dict(axis=axis)
        return self._real(integers.astype(NUMPY[dtype]),
                          scale if axis is not None else scale.reshape(()), name, **attributes)

    def _real(self, integers: np.ndarray, scale: np.ndarray, name: str, **attributes: Any) -> str:
        """Constant integers times their scale."""
        return self.node('DequantizeLinear', [
            self.constant(integers, f'{name}/integers'), self.constant(scale, f'{name}/scale'),
            # ONNX Runtime moves these nodes, and takes integers without a zero point for unsigned.
            self.constant(np.zeros(scale.shape, integers.dtype), f'{name}/zero')], name, **attributes)

    # Operands

    def operand(self, op: Op, index: int) -> str:
        """An operand, constant or not."""
        value = op.inputs[index]
        if not self.graph.values[value].is_constant:
            return self.values[value]
        data = self.graph.values[value].data.detach().cpu().numpy()
        name = f'{op.site}/operand{index}'
        if data.dtype == np.bool_:
            return self.constant(data, name)
        if data.dtype.kind == 'i':
            return self.constant(data.astype(np.int64), name)
        if self.scales is None:
            return self.constant(data.astype(np.float32), name)
        dtype, scale = self.scales.constants[op.output, index]
        slot = (value, dtype, scale)
        if slot not in self._constants:
            self._constants[slot] = self._dequantized(
                data.astype(np.float32), np.array(scale), dtype, name)
        return self._constants[slot]

    def weight(self, op: Op) -> Tuple[str, Tuple[int, ...]]:
        """The weight of a product, output channels first, and its shape."""
        data = self.graph.values[op.inputs[1]].data.detach().cpu()
        if KINDS[op.kind].transposed:
            data = channels_exchanged(data, op.params['groups'])
        array, name = data.numpy().astype(np.float32), f'{op.site}/weight'
        slot = ('weight', op.inputs[1])
        if slot not in self._constants:
            if self.scales is None:
                self._constants[slot] = self.constant(array, name)
            else:
                dtype, scale = self.scales.weights[op.output]
                self._constants[slot] = self._dequantized(array, scale, dtype, name, axis=0)
        return self._constants[slot], array.shape

    def bias(self, op: Op, as_float: bool = False) -> List[str]:
        """The bias of a product, if it has one.

        int32 on the scale of its sums, unless as a float number, or where the result is not rounded.
        """
        if len(op.inputs) < 3:
            return []
        data = self.graph.values[op.inputs[2]].data.detach().cpu().numpy().astype(np.float32)
        name, scale = f'{op.site}/bias', None if as_float else self._scale_of_sums(op)
        if scale is not None:
            integers = np.rint(data.astype(np.float64) / scale)
            if np.abs(integers).max(initial=0) <= INT32_RANGE:
                return [self._real(integers.astype(np.int32), scale, name, axis=0)]
        return [self.constant(data, name)]

    def _scale_of_sums(self, op: Op) -> Optional[np.ndarray]:
        if self.scales is None or op.inputs[0] not in self.scales.own \
                or self.scales.own.get(op.output, ('', ))[0] == 'int32':
            return None
        dtype, scale = self.scales.own[op.inputs[0]]
        if dtype not in NUMPY:
            return None
        return (np.float32(scale) * self.scales.weights[op.output][1]).astype(np.float32)

    def shape(self, op: Op) -> Tuple[int, ...]:
        """Shape of the result of an op."""
        return tuple(self.graph.values[op.output].shape)

    def fill(self, op: Op) -> float:
        """The number that an op puts among integers, on their grid."""
        fills = self.scales.fills if self.scales else {}
        return fills.get(op.output, op.params['fill'])
