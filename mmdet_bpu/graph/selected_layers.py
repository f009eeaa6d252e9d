"""Select a layer before what is computed for all layers alike.

A DETR head takes the hidden states of all decoder layers in one call, and its family deploys the
last::

    x = stack(h0, h1, h2); y = linear(x); out = y[2]
    out = linear(h2)

The op keeps its site and its key: what is trained on all layers runs on one.
"""
from dataclasses import replace
from typing import Dict, List, Optional, Tuple

from torch import Tensor

from mmdet_bpu.graph.opgraph import Op, OpGraph, ValueInfo

# Element [i] along dim 0 of the output is made of the elements [i] of the inputs.
POINTWISE = ('unary', 'relu', 'scale', 'add', 'sub', 'mul', 'div', 'maximum', 'minimum')
ALONG_A_DIM = ('slice', 'concat')
ALONG_DIMS = ('sum', 'mean', 'amax')


def select_early(graph: OpGraph) -> None:
    """Move selections along dim 0 that make an output towards the inputs, in place."""
    selection = _Selection(graph)
    for name in list(graph.outputs):
        found = selection.selected_by(name)
        if found is not None and selection.passes(found[0]):
            graph.replace_value(name, selection.of(*found))


class _Selection:

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.producers, self.users = graph.producers(), graph.users()
        self._made: Dict[Tuple[str, int], str] = {}

    def selected_by(self, name: str) -> Optional[Tuple[str, int]]:
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

    def passes(self, value: str) -> bool:
        """Whether ``value[i]`` can be had without the other layers of ``value``."""
        op = self.producers.get(value)
        if op is None or value in self.graph.outputs:
            return False
        if op.kind == 'stack':
            return op.params['dim'] == 0
        rank = len(self._shape(value))
        if len(self.users[value]) > 1 or rank < 2:
            return False
        if op.kind == 'linear':
            return rank > 2
        if op.kind in ALONG_A_DIM:
            return op.params['dim'] != 0
        if op.kind in ALONG_DIMS:
            return 0 not in op.params['dims']
        return op.kind in POINTWISE

    def of(self, value: str, index: int) -> str:
        """The value that is ``value[index]``."""
        if (value, index) not in self._made:
            self._made[value, index] = self._select(value, index)
        return self._made[value, index]

    def _select(self, value: str, index: int) -> str:
        info = self.graph.values[value]
        if info.is_constant:
            return self._add_constant(f'{value}_{index}', info, info.data[index])
        if not self.passes(value):
            return self._cut(value, index)
        op = self.producers[value]
        if op.kind == 'stack':
            return op.inputs[index]
        name = f'{value}_{index}'
        chosen = replace(op, inputs=self._operands(op, index), output=name,
                         params=_without_dim_0(op.params))
        self.graph.ops.append(chosen)
        self.graph.values[name] = ValueInfo(info.shape[1:], info.dtype)
        return name

    def _operands(self, op: Op, index: int) -> List[str]:
        """Selected operands; one without the layers' axis is the same for all of them."""
        rank, names = len(self._shape(op.output)), []
        for position, name in enumerate(op.inputs):
            shape = self._shape(name)
            weight = op.kind == 'linear' and position > 0
            if weight or len(shape) < rank:
                names.append(name)
            else:
                names.append(self.of(name, index if shape[0] > 1 else 0))
        return names

    def _cut(self, value: str, index: int) -> str:
        info, source = self.graph.values[value], self.producers.get(value)
        site = source.site if source is not None else value
        shape = info.shape
        for kind, made, size, params in (
                ('slice', f'{value}_{index}_cut', (1, *shape[1:]),
                 dict(dim=0, begin=index, end=index + 1, step=1)),
                ('reshape', f'{value}_{index}', shape[1:], {})):
            self.graph.ops.append(Op(kind, [value], params, made, site, arg_of_input=[None]))
            self.graph.values[made] = ValueInfo(size, info.dtype)
            value = made
        return value

    def _add_constant(self, name: str, info: ValueInfo, data: Tensor) -> str:
        self.graph.values[name] = ValueInfo(tuple(data.shape), info.dtype, data, info.learned)
        return name

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
