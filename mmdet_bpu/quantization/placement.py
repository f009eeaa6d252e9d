"""Where quantizers go: which tensors have integers of their own, and which share them.

Every value of the deployed graph falls in one class:

* ``own``: it is rounded to integers after the op that makes it.
* ``alias``: the same integers as its input (data movement, max-pool, a standalone relu, a
  positive scalar factor, which only changes the scale).
* ``fused``: it never exists as integers (a product before its residual add or relu, the inside
  of a chain of unary functions with the positive factors between them).
* ``index``: integers of no scale (top-k indices, masks).

Values that an op must find on one scale (concat, stack, the samples of ``grid_sample``) form a
group that shares a quantizer.
"""
from typing import Dict, List, Optional, Set

from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import Placement, Role
from mmdet_bpu.program.kinds import KINDS, Group, of_group, sharing

MOVEMENT = of_group(Group.MOVEMENT)
SHARED = sharing()
SAMPLED = of_group(Group.SAMPLED)


def _unary_roots(graph: OpGraph, materialised: Set[str], scaled: Set[str]) -> Dict[str, str]:
    """Value -> the one value it is an elementwise function of (itself if there is none).

    Values in ``scaled`` have the integers of what they are multiples of.
    """
    roots: Dict[str, str] = {}

    def root_of(name: str) -> str:
        return name if name in materialised else roots.get(name, name)

    for op in graph.ops:
        inputs = graph.variable_inputs(op)
        if op.kind == 'unary':
            roots[op.output] = root_of(op.inputs[0])
        elif op.kind == 'scale':
            if op.output not in scaled and root_of(op.inputs[0]) != op.inputs[0]:
                roots[op.output] = root_of(op.inputs[0])
        elif KINDS[op.kind].group is Group.BINARY and len(inputs) == 2:
            left, right = root_of(op.inputs[0]), root_of(op.inputs[1])
            inside = op.inputs[0] != left or op.inputs[1] != right
            if left == right and inside:
                roots[op.output] = left
    return roots


def unary_chains(graph: OpGraph) -> Dict[str, str]:
    """Outputs of unary chains -> root, for all members; inner members are read by the chain only.

    A member that anything outside reads, or that is an output, ends its chain: it is rounded,
    and what follows starts from it. A positive factor is a member between two functions; behind
    the last one it changes the scale alone.
    """
    users = graph.users()
    multiples = {op.output for op in graph.ops if op.kind == 'scale'}
    materialised: Set[str] = set(graph.outputs)
    scaled: Set[str] = multiples & materialised
    while True:
        roots = _unary_roots(graph, materialised, scaled)
        ends = {
            name for name, root in roots.items() if name not in materialised
            and not (users[name] and all(roots.get(u.output) == root for u in users[name]))
        }
        if not ends:
            return roots
        if ends & multiples:
            scaled |= ends & multiples
        else:
            materialised |= ends


class _Placer:

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.users = graph.users()
        names = [*graph.inputs, *(op.output for op in graph.ops)]
        self.order = {name: index for index, name in enumerate(names)}
        self.chains = unary_chains(graph)
        self.result = Placement()

    def run(self) -> Placement:
        kinds = self.result.kinds
        for name in self.graph.inputs:
            kinds[name] = Role.OWN
        for op in self.graph.ops:
            self._classify(op)
        self._group()
        self._constants()
        return self.result

    def _classify(self, op: Op) -> None:
        result, out = self.result, op.output
        if KINDS[op.kind].group is Group.SIGN or (
                op.kind == 'topk' and op.params['part'] == 'indices'):
            result.kinds[out] = Role.INDEX
        elif self._scale_only(op) or self._carries(op):
            self._alias(op)
        elif out in self.chains and self._inside_chain(out):
            result.kinds[out] = Role.FUSED
            result.root[out] = self.chains[out]
        elif KINDS[op.kind].joins and self._fuses(op):
            result.kinds[out] = Role.FUSED
        elif self._joins(op):
            self._alias(op, self._joined(op)[0])
        else:
            result.kinds[out] = Role.OWN
            if out in self.chains:
                result.root[out] = self.chains[out]

    def _joins(self, op: Op) -> bool:
        """Whether the operands of ``op`` are on one scale; not inside a chain, which has none."""
        return op.kind in SHARED and op.output not in self.chains

    def _joined(self, op: Op) -> List[str]:
        """Variable operands of a join; a mask that chooses between them is none of them."""
        return [n for n in self.graph.variable_inputs(op)
                if self.graph.values[n].dtype.is_floating_point]

    def _alias(self, op: Op, source: Optional[str] = None) -> None:
        source = source or op.inputs[KINDS[op.kind].carries]
        kind = self.result.kinds[source]
        self.result.kinds[op.output] = Role.INDEX if kind == Role.INDEX else Role.ALIAS
        self.result.source[op.output] = source
        if op.kind == 'scale':
            self.result.factor[op.output] = op.params['factor']

    def _carries(self, op: Op) -> bool:
        """Data movement, or the values of a top-k; not a relu that a product takes in."""
        if op.kind == 'relu' and self.result.kinds.get(op.inputs[0]) == Role.FUSED:
            return False
        return KINDS[op.kind].group in (Group.MOVEMENT, Group.SELECT)

    def _scale_only(self, op: Op) -> bool:
        """A positive factor changes the scale alone, unless others must share the new scale."""
        return op.kind == 'scale' and op.output not in self.chains \
            and not self._reaches_shared(op.output)

    def _reaches_shared(self, name: str) -> bool:
        return any(
            self._joins(u) or u.kind in SAMPLED
            or (u.kind in MOVEMENT and self._reaches_shared(u.output)) for u in self.users[name])

    def _inside_chain(self, name: str) -> bool:
        if name in self.graph.outputs or not self.users[name]:
            return False
        return all(self.chains.get(u.output) == self.chains[name] for u in self.users[name])

    def _fuses(self, op: Op) -> bool:
        """Whether the next op takes the accumulator: a residual add, a relu, or both."""
        name = op.output
        if name in self.graph.outputs or len(self.users[name]) != 1:
            return False
        user = self.users[name][0]
        if user.kind == 'relu':
            return True
        if user.kind != 'add' or 'add' not in KINDS[op.kind].joins:
            return False
        other = [n for n in user.inputs if n != name]
        if len(other) != 1 or self.graph.values[other[0]].is_constant:
            return False
        shape = self.graph.values[name].shape
        same = shape == self.graph.values[other[0]].shape == self.graph.values[user.output].shape
        # Of two accumulators that meet in an add, the first one stays integers of its own.
        return same and self.result.kinds.get(other[0]) != Role.FUSED

    def _group(self) -> None:
        result = self.result
        result.group = {n: n for n, kind in result.kinds.items() if kind == Role.OWN}

        def join(a: str, b: str) -> None:
            a, b = result.find(result.integers(a)), result.find(result.integers(b))
            first, second = sorted((a, b), key=self.order.get)
            result.group[second] = first

        for op in self.graph.ops:
            if self._joins(op):
                for name in self._joined(op):
                    join(op.output, name)
            elif op.kind in SAMPLED:
                join(op.output, op.inputs[0])

    def _constants(self) -> None:
        for op in self.graph.ops:
            for index, name in enumerate(op.inputs):
                info = self.graph.values[name]
                if not info.is_constant or not info.dtype.is_floating_point:
                    continue
                weight = KINDS[op.kind].weight
                if weight is not None and weight <= index <= weight + 1:
                    continue  # weights and biases have rules of their own
                joined = self.result.integers(op.output) if self._joins(op) else ''
                self.result.constants[op.output, index] = joined


def place(graph: OpGraph) -> Placement:
    """Classify every value of ``graph``; see the module's docstring."""
    return _Placer(graph).run()
