"""Select a layer before what is computed for all layers alike.

A DETR head takes the hidden states of all decoder layers in one call, and its family deploys the
last::

    x = stack(h0, h1, h2); y = linear(x); out = y[2]
    out = linear(h2)

The op keeps its site and its key: what is trained on all layers runs on one.
"""
from dataclasses import replace
from typing import Dict, List, Optional, Set, Tuple

from mmdet_bpu.graph.opgraph import Op, OpGraph, ValueInfo
from mmdet_bpu.program.kinds import Group, of_group

# Element [i] along dim 0 of the output is made of the elements [i] of the inputs.
POINTWISE = (*of_group(Group.UNARY, Group.BINARY), 'relu')
ALONG_A_DIM = ('slice', 'concat')
ALONG_DIMS = ('sum', 'mean', 'amax', 'amin')
EVERY = -1  # among the demanded layers: something needs the whole value


def select_early(graph: OpGraph) -> None:
    """Move selections along dim 0 that make an output towards the inputs, in place."""
    selection = _Selection(graph)
    for name, (value, index) in selection.selected.items():
        if selection.passes(value):
            graph.replace_value(name, selection.of(value, index))


class _Selection:
    """What is selected of which value.

    Attributes:
        selected (dict): Output -> (value, layer) that it is.
        demanded (dict): Value -> its layers that something needs, :data:`EVERY` for the whole.
    """

    def __init__(self, graph: OpGraph) -> None:
        self.graph, self.producers = graph, graph.producers()
        found = {name: self._selected_by(name) for name in graph.outputs}
        self.selected = {name: pair for name, pair in found.items() if pair is not None}
        self.demanded: Dict[str, Set[int]] = {name: set() for name in graph.values}
        self._made: Dict[Tuple[str, int], str] = {}
        self._demand()

    def _selected_by(self, name: str) -> Optional[Tuple[str, int]]:
        """``(x, i)`` if the value is ``x[i]``."""
        reshape = self.producers.get(name)
        if reshape is None or reshape.kind != 'reshape':
            return None
        source = reshape.inputs[0]
        if self._shape(source) != (1, *self._shape(name)):
            return None
        part = self.producers.get(source)  # absent where there is one layer only
        if part is not None and part.kind == 'slice' and part.params['dim'] == 0:
            return part.inputs[0], part.params['begin']
        return source, 0

    def _demand(self) -> None:
        """From the outputs to the inputs: which layers of a value are needed."""
        for name in self.graph.outputs:
            value, index = self.selected.get(name, (name, EVERY))
            self.demanded[value].add(index)
        for op in reversed(self.graph.ops):
            if self.passes(op.output):
                index = min(self.demanded[op.output])
                for name, layer in self._reads(op, index):
                    self.demanded[name].add(EVERY if layer is None else layer)
            elif self.demanded[op.output]:
                for name in op.inputs:
                    self.demanded[name].add(EVERY)

    def passes(self, value: str) -> bool:
        """Whether all that is needed of a value is one layer, to be had without the others."""
        op = self.producers.get(value)
        if op is None or len(self.demanded[value]) != 1 or EVERY in self.demanded[value]:
            return False
        if any(name in self.graph.inputs for name in op.inputs):
            return False  # the image is rounded where a call reads the whole of it
        if op.kind in ALONG_A_DIM or op.kind == 'stack':
            return (op.params['dim'] == 0) == (op.kind == 'stack')
        if op.kind in ALONG_DIMS:
            return 0 not in op.params['dims']
        return op.kind in POINTWISE or (op.kind == 'linear' and len(self._shape(value)) > 2)

    def _reads(self, op: Op, index: int) -> List[Tuple[str, Optional[int]]]:
        """Operands of one layer of a passing op and their layers, None for an operand as it is."""
        if op.kind == 'stack':
            return [(op.inputs[index], None)]
        rank, reads = len(self._shape(op.output)), []
        for position, name in enumerate(op.inputs):
            shape = self._shape(name)
            if len(shape) < rank or (op.kind == 'linear' and position > 0):
                reads.append((name, None))
            else:
                reads.append((name, index if shape[0] > 1 else 0))
        return reads

    def of(self, value: str, index: int) -> str:
        """The value that is ``value[index]``."""
        if (value, index) not in self._made:
            self._made[value, index] = self._select(value, index)
        return self._made[value, index]

    def _select(self, value: str, index: int) -> str:
        info, name = self.graph.values[value], f'{value}_{index}'
        if info.is_constant:
            data = info.data[index]
            self.graph.values[name] = ValueInfo(tuple(data.shape), info.dtype, data, info.learned)
            return name
        if not self.passes(value):
            return self._cut(value, index)
        op = self.producers[value]
        operands = [name if layer is None else self.of(name, layer)
                    for name, layer in self._reads(op, index)]
        if op.kind == 'stack':
            return operands[0]
        self.graph.ops.append(replace(op, inputs=operands, output=name,
                                      params=_without_dim_0(op.params)))
        self.graph.values[name] = ValueInfo(info.shape[1:], info.dtype)
        return name

    def _cut(self, value: str, index: int) -> str:
        """``value[index]`` where it stands: a slice and a reshape behind the value."""
        info, source = self.graph.values[value], self.producers.get(value)
        site = value if source is None else source.site
        for kind, suffix, shape, params in (
                ('slice', '_cut', (1, *info.shape[1:]),
                 dict(dim=0, begin=index, end=index + 1, step=1)),
                ('reshape', '', info.shape[1:], {})):
            name = f'{value}_{index}{suffix}'
            self.graph.ops.append(Op(kind, [value], params, name, site, arg_of_input=[None],
                                     function=source.function if source else ''))
            self.graph.values[name] = ValueInfo(tuple(shape), info.dtype)
            value = name
        return value

    def _shape(self, name: str) -> tuple:
        return tuple(self.graph.values[name].shape)


def _without_dim_0(params: dict) -> dict:
    """Parameters of an op over one dimension less."""
    moved = dict(params)
    if 'dim' in moved:
        moved['dim'] -= 1
    if 'dims' in moved:
        moved['dims'] = [dim - 1 for dim in moved['dims']]
    return moved
