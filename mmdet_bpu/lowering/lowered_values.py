"""What every lowering rule uses: lowered values, their layouts, constants and fake quantizers."""
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import numpy as np
from xdsl.ir import SSAValue

from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import Scales
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.layout import (CHANNELS_LAST, Order, identity, reshaped, stored_shape,
                                   transposition)
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.program.dtypes import BITS

ROUNDED = ('int8', 'int16')
"""Types that a fake quantizer rounds to; an accumulator is not rounded."""


@dataclass
class Stored:
    """A lowered value: its SSA value, logical shape and stored order."""
    ssa: SSAValue
    shape: Tuple[int, ...]
    order: Order


class LoweredValues:
    """Lowered values of one graph and the ways to read them.

    Args:
        graph (OpGraph): See :func:`mmdet_bpu.lowering.hbir.lower_graph`.
        scales (Scales): Quantization of its values.
    """

    def __init__(self, graph: OpGraph, scales: Scales) -> None:
        self.graph, self.scales = graph, scales
        self.values: Dict[str, Stored] = {}
        self._moved: Dict[tuple, SSAValue] = {}
        self._constants: Dict[tuple, SSAValue] = {}
        inputs = []
        for name in graph.inputs:
            shape = graph.values[name].shape
            inputs.append((name, tensor_type(stored_shape(shape, CHANNELS_LAST), 'f32')))
        self.b = OpBuilder(inputs)
        for name, ssa in zip(graph.inputs, self.b.inputs):
            shape = graph.values[name].shape
            ssa = self.fake_quant(name, ssa, 'image')
            self.values[name] = Stored(ssa, shape, CHANNELS_LAST)

    def fake_quant(self, name: str, ssa: SSAValue, site: str) -> SSAValue:
        dtype, scale = self.scales.own.get(name, ('', 0.0))
        if dtype not in ROUNDED:
            return ssa
        return self.b.fake_quant(ssa, BITS[dtype], scale, site=site)

    def emit(self, name: str, operands: List[Optional[SSAValue]], attrs: dict, shape: tuple,
              order: Order, site: str) -> Stored:
        type_ = tensor_type(stored_shape(shape, order), 'f32')
        return Stored(self.b.op(name, operands, attrs, type_, site=site), tuple(shape), order)

    def in_order(self, name: str, order: Order) -> SSAValue:
        """The value stored in ``order``, transposed if needed (once)."""
        stored = self.values[name]
        return self.move(stored, order).ssa

    def move(self, stored: Stored, order: Order) -> Stored:
        if stored.order == order:
            return stored
        # Views of one value share its storage in different orders.
        slot = (stored.ssa, stored.order, order)
        if slot not in self._moved:
            source = stored_shape(stored.shape, stored.order)
            dims = transposition(stored.order, order)
            target = stored_shape(stored.shape, order)
            element = stored.ssa.type.element_type
            moved = [d for d in dims if source[d] != 1]
            if moved == sorted(moved):  # only dimensions of size 1 change places
                self._moved[slot] = self.b.op('hbir.reshape', [stored.ssa], dict(shape=target),
                                              type(stored.ssa.type)(element, list(target)))
            else:
                self._moved[slot] = self.b.op('hbir.transpose', [stored.ssa], dict(dims=dims),
                                              type(stored.ssa.type)(element, list(target)))
        return Stored(self._moved[slot], stored.shape, order)

    def operand(self, op: Op, index: int, order: Order) -> SSAValue:
        """Operand of an op stored in ``order``, constant or not."""
        if self.is_constant(op.inputs[index]):
            return self.constant(op, index, order)
        return self.in_order(op.inputs[index], order)

    def constant(self, op: Op, index: int, order: Order) -> SSAValue:
        """A constant operand, permuted to ``order``, with its fake quantizer; once for all readers."""
        name = op.inputs[index]
        slot = (name, order, self.scales.constants.get((op.output, index)))
        if slot not in self._constants:
            self._constants[slot] = self._new_constant(op, *slot)
        return self._constants[slot]

    def _new_constant(self, op: Op, name: str, order: Order,
                      quantization: Optional[Tuple[str, float]]) -> SSAValue:
        data = self.graph.values[name].data.detach().cpu().numpy()
        data = data.reshape((1, ) * (len(order) - data.ndim) + data.shape).transpose(order)
        data = np.ascontiguousarray(data)
        if data.dtype == np.bool_:
            return self.b.constant(data, site=op.site)
        if data.dtype.kind == 'i':
            return self.b.constant(data.astype(np.int32), site=op.site)
        dtype, scale = quantization
        limit = scale * (1 << (BITS[dtype] - 1))
        data = np.clip(data.astype(np.float32), -limit, limit)
        ssa = self.b.constant(data, site=op.site)
        return self.b.fake_quant(ssa, BITS[dtype], scale, site=op.site)

    def fill(self, op: Op) -> float:
        """The number that an op puts among integers, on their grid."""
        return self.scales.fills.get(op.output, op.params['fill'])

    def scalar(self, value: float) -> SSAValue:
        return self.b.constant(np.array([value], np.float32))

    def is_constant(self, name: str) -> bool:
        return self.graph.values[name].is_constant

    def shape(self, op: Op) -> tuple:
        return tuple(self.graph.values[op.output].shape)

    def typed(self, name: str, operands: List[SSAValue], attrs: dict, shape: tuple, order: Order,
               site: str) -> Stored:
        """Data movement keeps the element type: indices move too."""
        source = operands[0].type
        type_ = type(source)(source.element_type, list(stored_shape(shape, order)))
        return Stored(self.b.op(name, operands, attrs, type_, site=site), tuple(shape), order)

    def reshaped(self, stored: Stored, shape: tuple, site: str) -> Stored:
        order = reshaped(stored.shape, shape, stored.order)
        if order is None:
            stored = self.move(stored, identity(len(stored.shape)))
            order = identity(len(shape))
        if stored_shape(shape, order) == stored_shape(stored.shape, stored.order):
            return Stored(stored.ssa, tuple(shape), order)
        return self.typed('hbir.reshape', [stored.ssa], dict(shape=stored_shape(shape, order)),
                           shape, order, site)

    def tile(self, x: Stored, shape: tuple, site: str) -> Stored:
        times = [shape[d] // x.shape[d] for d in x.order]
        return self.typed('hbir.tile', [x.ssa], dict(multiplies=times), shape, x.order, site)
