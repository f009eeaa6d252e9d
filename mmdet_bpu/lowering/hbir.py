"""Lower the deployed operation graph to fake-quantized HBIR.

The graph is the one of :mod:`mmdet_bpu.graph.opgraph` (read by its attributes; nothing of
it is imported). Feature maps are stored channels last. Each own value is followed by a
``qnt.const_fake_quant``; weights and constant operands have theirs.
"""
from typing import Any, List, Tuple

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.layout import (CHANNELS_LAST, Order, identity, permuted, stored_shape,
                                   with_new_dim)
from mmdet_bpu.lowering.lowered_values import BITS, LoweredValues, Scales, Stored
from mmdet_bpu.hbir.types import tensor_type

__all__ = ['Scales', 'lower_graph']

LARGEST_FLOAT = float(np.finfo(np.float32).max)
_UNARY = {name: f'hbir.{name}' for name in ('sigmoid', 'exp', 'log', 'sin', 'cos', 'rsqrt', 'sqrt',
                                            'reciprocal', 'tanh', 'neg', 'abs', 'erf')}
_UNARY['silu'] = 'hbir.swish'
_BINARY = {'add': 'hbir.add', 'sub': 'hbir.sub', 'mul': 'hbir.mul', 'div': 'hbir.div'}
_REDUCE = {'sum': 'hbir.reduce_sum', 'mean': 'hbir.reduce_mean', 'amax': 'hbir.reduce_max'}


class Lowering(LoweredValues):
    """One run of :func:`lower_graph`: one rule per kind of operation."""

    def run(self) -> ModuleOp:
        """Lower every op."""
        for op in self.graph.ops:
            handler = getattr(self, f'_lower_{op.kind}', None)
            if handler is None:
                raise BpuError(f'{op.site}: no integer form of {op.kind}')
            stored = handler(op)
            if stored.shape != tuple(self.graph.values[op.output].shape):
                raise AssertionError(f'{op.site}: lowered to {stored.shape}, captured '
                                     f'{self.graph.values[op.output].shape}')
            stored.ssa = self._fake_quant(op.output, stored.ssa, op.site)
            self.values[op.output] = stored
        outputs = []
        for name, public in zip(self.graph.outputs, self.graph.output_names):
            rank = len(self.graph.values[name].shape)
            outputs.append((public, self._in_order(name, identity(rank))))
        return self.b.finish(outputs)

    # Products

    def _product(self, op: Any, name: str, weight_axes: Tuple[int, ...], attrs: dict,
                 x: SSAValue, order: Order) -> Stored:
        weight = self.graph.values[op.inputs[1]].data.detach().cpu().numpy().astype(np.float32)
        dtype, scale = self.scales.weights[op.output]
        ssa = self.b.constant(np.ascontiguousarray(weight.transpose(weight_axes)), site=op.site)
        ssa = self.b.fake_quant(ssa, BITS[dtype], scale, axis=0, site=op.site)
        bias = None
        if len(op.inputs) > 2:
            data = self.graph.values[op.inputs[2]].data.detach().cpu().numpy()
            bias = self.b.constant(data.astype(np.float32), site=op.site)
        return self._emit(name, [x, ssa, bias], attrs, self._shape(op), order, op.site)

    def _lower_conv2d(self, op: Any) -> Stored:
        p = op.params
        attrs = dict(stride=p['stride'], pad=p['padding'], dilation=p['dilation'],
                     groupNum=p['groups'])
        x = self._in_order(op.inputs[0], CHANNELS_LAST)
        return self._product(op, 'hbir.conv2d', (0, 2, 3, 1), attrs, x, CHANNELS_LAST)

    def _lower_linear(self, op: Any) -> Stored:
        order = self.values[op.inputs[0]].order
        if order[-1] != len(order) - 1:
            order = identity(len(order))
        x = self._in_order(op.inputs[0], order)
        return self._product(op, 'hbir.linear', (0, 1), {}, x, order)

    def _lower_matmul(self, op: Any) -> Stored:
        operands = [self._operand(op, i, identity(len(self.graph.values[n].shape)))
                    for i, n in enumerate(op.inputs)]
        shape = self._shape(op)
        return self._emit('hbir.matmul', operands, {}, shape, identity(len(shape)), op.site)

    # Elementwise

    def _elementwise(self, op: Any, name: str) -> Stored:
        shape = self._shape(op)
        rank = len(shape)
        variable = [n for n in op.inputs if not self._is_constant(n)]
        full = [self.values[n] for n in variable if self.values[n].shape == shape]
        ranked = [self.values[n] for n in variable if len(self.values[n].shape) == rank]
        order = (full or ranked)[0].order if (full or ranked) else identity(rank)
        operands = []
        for index, n in enumerate(op.inputs):
            if self._is_constant(n):
                operands.append(self._constant(op, index, order))
                continue
            stored = self.values[n]
            if len(stored.shape) < rank:
                padded = (1, ) * (rank - len(stored.shape)) + stored.shape
                stored = self._reshaped(stored, padded, op.site)
            operands.append(self._move(stored, order).ssa)
        return self._emit(name, operands, {}, shape, order, op.site)

    def _lower_add(self, op: Any) -> Stored:
        return self._elementwise(op, 'hbir.add')

    def _lower_sub(self, op: Any) -> Stored:
        return self._elementwise(op, 'hbir.sub')

    def _lower_mul(self, op: Any) -> Stored:
        return self._elementwise(op, 'hbir.mul')

    def _lower_div(self, op: Any) -> Stored:
        return self._elementwise(op, 'hbir.div')

    def _lower_relu(self, op: Any) -> Stored:
        x = self.values[op.inputs[0]]
        return self._emit('hbir.relu', [x.ssa], {}, x.shape, x.order, op.site)

    def _lower_scale(self, op: Any) -> Stored:
        return self._with_scalar(op, 'hbir.mul', op.params['factor'])

    def _with_scalar(self, op: Any, name: str, value: float, first: bool = False) -> Stored:
        x = self.values[op.inputs[0]]
        operands = [x.ssa, self._scalar(value)]
        return self._emit(name, operands[::-1] if first else operands, {}, x.shape, x.order,
                          op.site)

    def _lower_unary(self, op: Any) -> Stored:
        fn, p = op.params['fn'], op.params
        x = self.values[op.inputs[0]]
        if fn in ('add', 'mul'):
            return self._with_scalar(op, _BINARY[fn], p['value'])
        if fn in ('rsub', 'rdiv'):
            return self._with_scalar(op, _BINARY[fn[1:]], p['value'], first=True)
        if fn == 'clamp':
            low, high = p.get('min'), p.get('max')
            attrs = dict(min=-LARGEST_FLOAT if low is None else float(low),
                         max=LARGEST_FLOAT if high is None else float(high))
            return self._emit('hbir.clip', [x.ssa], attrs, x.shape, x.order, op.site)
        if fn == 'square':
            return self._emit('hbir.mul', [x.ssa, x.ssa], {}, x.shape, x.order, op.site)
        if fn not in _UNARY:
            raise BpuError(f'{op.site}: no integer form of {fn}')
        return self._emit(_UNARY[fn], [x.ssa], {}, x.shape, x.order, op.site)

    # Reductions and pooling

    def _reduce(self, op: Any) -> Stored:
        x = self.values[op.inputs[0]]
        dims = sorted(x.order.index(d) for d in op.params['dims'])
        return self._emit(_REDUCE[op.kind], [x.ssa], dict(dims=dims, keepDim=True),
                          self._shape(op), x.order, op.site)

    _lower_sum = _lower_mean = _lower_amax = _reduce

    def _lower_max_pool2d(self, op: Any) -> Stored:
        p = op.params
        top, left = p['padding']
        attrs = dict(kernel=p['kernel'], stride=p['stride'], pad=[top, left, top, left],
                     dilation=p['dilation'], ceilMode=p['ceil_mode'])
        x = self._in_order(op.inputs[0], CHANNELS_LAST)
        return self._emit('hbir.max_pool', [x], attrs, self._shape(op), CHANNELS_LAST, op.site)

    # Sampling and selection

    def _lower_grid_sample(self, op: Any) -> Stored:
        x = self._operand(op, 0, CHANNELS_LAST)
        grid = self._operand(op, 1, identity(4))
        mode = {'zeros': 'constant', 'border': 'border'}[op.params['padding']]
        attrs = dict(mode='bilinear', expansionMode=mode, alignCorner=False, padValue=0.0)
        return self._emit('hbir.grid_sample', [x, grid], attrs, self._shape(op), CHANNELS_LAST,
                          op.site)

    def _lower_topk(self, op: Any) -> Stored:
        shape = self._shape(op)
        order = identity(len(shape))
        x = self._in_order(op.inputs[0], order)
        attrs = dict(k=op.params['k'], dim=op.params['dim'], largest=True, sorted=True)
        types = [tensor_type(shape, 'f32'), tensor_type(shape, 'si32')]
        results = self.b.op('hbir.topk', [x], attrs, types, site=op.site)
        return Stored(results[0 if op.params['part'] == 'values' else 1], shape, order)

    def _lower_gather(self, op: Any) -> Stored:
        shape = self._shape(op)
        order = identity(len(shape))
        operands = [self._operand(op, i, order) for i in range(2)]
        return self._emit('hbir.gather_elements', operands, dict(dim=op.params['dim']), shape,
                          order, op.site)

    def _lower_where(self, op: Any) -> Stored:
        x = self.values[op.inputs[1]]
        mask = self._constant(op, 0, x.order)
        return self._emit('hbir.where', [mask, self._scalar(op.params['fill']), x.ssa], {},
                          x.shape, x.order, op.site)

    # Data movement

    def _lower_reshape(self, op: Any) -> Stored:
        return self._reshaped(self.values[op.inputs[0]], self._shape(op), op.site)

    def _lower_permute(self, op: Any) -> Stored:
        x = self.values[op.inputs[0]]
        return Stored(x.ssa, self._shape(op), permuted(x.order, op.params['dims']))

    def _lower_slice(self, op: Any) -> Stored:
        x, p = self.values[op.inputs[0]], op.params
        stored = stored_shape(x.shape, x.order)
        begin, end, step = [0] * len(stored), list(stored), [1] * len(stored)
        axis = x.order.index(p['dim'])
        begin[axis], end[axis], step[axis] = p['begin'], p['end'], p['step']
        return self._typed('hbir.slice', [x.ssa], dict(begin=begin, end=end, step=step),
                           self._shape(op), x.order, op.site)

    def _lower_tile(self, op: Any) -> Stored:
        return self._tile(self.values[op.inputs[0]], self._shape(op), op.site)

    def _lower_expand(self, op: Any) -> Stored:
        x, shape = self.values[op.inputs[0]], self._shape(op)
        if len(x.shape) < len(shape):
            x = self._reshaped(x, (1, ) * (len(shape) - len(x.shape)) + x.shape, op.site)
        return x if x.shape == shape else self._tile(x, shape, op.site)

    def _joined(self, op: Any, parts: List[Stored], dim: int, shape: tuple) -> Stored:
        order = next(p.order for p in parts if p is not None)
        operands = [
            self._constant(op, i, order) if part is None else self._move(part, order).ssa
            for i, part in enumerate(parts)
        ]
        return self._typed('hbir.concat', operands, dict(dim=order.index(dim)), shape, order,
                           op.site)

    def _lower_concat(self, op: Any) -> Stored:
        parts = [None if self._is_constant(n) else self.values[n] for n in op.inputs]
        return self._joined(op, parts, op.params['dim'], self._shape(op))

    def _lower_stack(self, op: Any) -> Stored:
        dim, shape = op.params['dim'], self._shape(op)
        one = shape[:dim] + (1, ) + shape[dim + 1:]
        parts = []
        for name in op.inputs:
            if self._is_constant(name):
                raise BpuError(f'{op.site}: stacking a constant tensor has no integer form')
            x = self.values[name]
            order = with_new_dim(x.order, dim)
            parts.append(self._typed('hbir.reshape', [x.ssa], dict(shape=stored_shape(one, order)),
                                     one, order, op.site))
        return self._joined(op, parts, dim, shape)


def lower_graph(graph: Any, scales: Scales) -> ModuleOp:
    """Fake-quantized HBIR of a deployed graph.

    Args:
        graph (OpGraph): Its constants hold the weights as they are now.
        scales (Scales): Quantization of every own value, constant operand and weight.

    Raises:
        BpuError: An op without an integer form; the message names its site.
    """
    return Lowering(graph, scales).run()
