"""The captured graph in few kinds of operations: what placement and lowering work on.

Many spellings in torch (``x + y``, ``torch.add``, ``Tensor.__radd__``) are one kind here.
:func:`build_opgraph` translates a :class:`CapturedGraph`; the rules are in
:mod:`mmdet_bpu.graph.canonical`.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from mmdet_bpu.families.output_tree import Tree
from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.program.kinds import KINDS

Shape = Tuple[int, ...]


@dataclass
class Op:
    """One operation with one output tensor.

    Attributes:
        kind (str): ``conv2d``, ``linear``, ``matmul``, ``add``, ``unary``, ``reshape``, ...
        inputs (list[str]): Names of values; constants are values too.
        params (dict): Plain Python parameters of the kind.
        output (str): Name of the output value.
        site (str): Public name of the captured call; several ops may share one.
        key (tuple, optional): Runtime key of the call, for ops whose output the call returns.
        call (tuple, optional): Runtime key of the call that the op is a part of.
        path (str): Module path.
        function (str): Name of the captured torch function.
        opened (tuple[str]): Functions that were written out in simpler ones around the call.
        arg_of_input (list[int | None]): Position of each input among the call's tensors.
    """
    kind: str
    inputs: List[str]
    params: Dict[str, Any]
    output: str
    site: str
    key: Optional[tuple] = None
    call: Optional[tuple] = None
    path: str = ''
    function: str = ''
    opened: Tuple[str, ...] = ()
    arg_of_input: List[Optional[int]] = field(default_factory=list)


@dataclass
class ValueInfo:
    """Shape, dtype and, for constants, the data of a value.

    ``learned`` says that training changes the data; ``origin`` then names the parameter or buffer
    that the data is, and is empty where the data was computed from such.
    """
    shape: Shape
    dtype: torch.dtype
    data: Optional[Tensor] = None
    learned: bool = False
    origin: str = ''

    @property
    def is_constant(self) -> bool:
        """Whether the value does not depend on the image."""
        return self.data is not None


def transposed_groups(op: Op) -> Optional[int]:
    """Groups of a product whose weights torch holds input channels first, None of any other."""
    return op.params['groups'] if KINDS[op.kind].transposed else None


class OpGraph:
    """Operations in execution order.

    Attributes:
        ops (list[Op]): Topologically sorted.
        values (dict[str, ValueInfo]): All values by name.
        inputs (list[str]): Graph inputs.
        outputs (list[str]): Deployed outputs.
        output_names (list[str]): Their public names.
        output_tree (Tree): The same names in the nesting of the head's outputs; see
            :mod:`mmdet_bpu.families.output_tree`.
    """

    def __init__(self) -> None:
        self.ops: List[Op] = []
        self.values: Dict[str, ValueInfo] = {}
        self.inputs: List[str] = []
        self.outputs: List[str] = []
        self.output_names: List[str] = []
        self.output_tree: Tree = None

    def producers(self) -> Dict[str, Op]:
        """Value name -> the op that makes it."""
        return {op.output: op for op in self.ops}

    def users(self) -> Dict[str, List[Op]]:
        """Value name -> ops that read it, in order (an op appears once)."""
        users: Dict[str, List[Op]] = {name: [] for name in self.values}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                users[name].append(op)
        return users

    def variable_inputs(self, op: Op) -> List[str]:
        """Inputs of ``op`` that depend on the image."""
        return [name for name in op.inputs if not self.values[name].is_constant]

    def replace_value(self, old: str, new: str) -> None:
        """Let every reader of ``old`` read ``new``."""
        for op in self.ops:
            op.inputs = [new if name == old else name for name in op.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]

    def prune(self) -> None:
        """Drop ops and values that no output needs."""
        needed = set(self.outputs) | set(self.inputs)
        kept = []
        for op in reversed(self.ops):
            if op.output in needed:
                kept.append(op)
                needed.update(op.inputs)
        self.ops = kept[::-1]
        self.values = {name: info for name, info in self.values.items() if name in needed}


class GraphBuilder:
    """Appends ops while the captured nodes are translated one after the other."""

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.alias: Dict[str, str] = {}  # fx node name -> value name
        self.parts: Dict[str, Callable[[int], str]] = {}  # nodes with several outputs
        self.origins: Dict[str, str] = {}  # part of a constant -> the whole
        self.combined: Dict[str, Tuple[str, ...]] = {}  # mask -> how, and of which masks
        self.node = None

    def value(self, node: Any) -> str:
        """Value name of an fx node."""
        return self.alias[node.name]

    def info(self, name: str) -> ValueInfo:
        """Shape, dtype and data of a value."""
        return self.graph.values[name]

    def constant(self, data: Tensor, learned: bool = False, origin: Optional[str] = None) -> str:
        """A new constant value; ``origin`` is the constant of the call that it is a part of."""
        name = f'{self.node.name}_c{len(self.graph.values)}'
        if origin is not None:
            self.origins[name] = self.origins.get(origin, origin)
        self.graph.values[name] = ValueInfo(tuple(data.shape), data.dtype, data, learned)
        return name

    def op(self, kind: str, inputs: List[str], shape: Shape, dtype: Optional[torch.dtype] = None,
           last: bool = True, **params: Any) -> str:
        """Append an op; ``last`` says that its output is what the captured call returned."""
        node = self.node
        name = node.name if last and node.name not in self.graph.values \
            else f'{node.name}_{len(self.graph.values)}'
        dtype = dtype or self.info(inputs[0]).dtype
        self.graph.values[name] = ValueInfo(tuple(shape), dtype)
        # A part of a call that returns several tensors is a node of its own.
        call = node if 'part_of' not in node.meta else node.args[0]
        self.graph.ops.append(
            Op(kind=kind, inputs=list(inputs), params=params, output=name,
               site=node.meta.get('site') or node.meta.get('part_of', ''),
               key=node.meta.get('key') if last else None, call=call.meta.get('key'),
               path=node.meta.get('path', ''), function=function_name(call.target),
               opened=node.meta.get('opened', ()),
               arg_of_input=self._positions(call, inputs)))
        return name

    def _positions(self, call: Any, inputs: List[str]) -> List[Optional[int]]:
        nodes = list(call.meta.get('tensor_args', ()))
        names = [self.alias.get(n) for n in nodes]
        inputs = [self.origins.get(i, i) for i in inputs]
        return [names.index(i) if i in names else None for i in inputs]
