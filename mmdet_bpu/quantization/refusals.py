"""What has no integer form whatever its scales: refused before anything is calibrated."""
from math import prod
from typing import Callable, Dict, Iterator, Mapping, Optional

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.program.integer_rules import product_fault, sum_fault
from mmdet_bpu.program.kinds import KINDS, Group
from mmdet_bpu.graph.quantized_graph import Placement, Role

Dtypes = Mapping[str, str]
"""Own value -> dtype."""


class _Refusals:
    """The rules, each of which gives the reason why an op cannot run on integers, or None."""

    def __init__(self, graph: OpGraph, placement: Placement, dtypes: Dtypes) -> None:
        self.graph, self.placement, self.dtypes = graph, placement, dtypes

    def dtype(self, value: str) -> Optional[str]:
        """dtype of the integers that a value holds; None of constants and of indices."""
        if self.graph.values[value].is_constant or self.placement.kinds[value] == Role.INDEX:
            return None
        return self.dtypes[self.placement.integers(value)]

    def reasons(self, op: Op) -> Iterator[Optional[str]]:
        """Of every rule that speaks about ``op``."""
        row = KINDS[op.kind]
        yield self._integer_form(op)
        yield self._arithmetic_on_indices(op)
        if row.weight is not None:
            yield self._constant_weight(op)
        if op.kind in OF_KIND:
            yield OF_KIND[op.kind](self, op)
        if row.group is Group.REDUCE and 'dims' in op.params:
            yield self._reduction(op)

    def _integer_form(self, op: Op) -> Optional[str]:
        row = KINDS[op.kind]
        if row.integer or row.group is not Group.BINARY or op.output in self.placement.root:
            return None
        return (f'{op.kind} of two tensors that are no functions of one tensor has no integer form; '
                'multiply by the reciprocal')

    def _arithmetic_on_indices(self, op: Op) -> Optional[str]:
        info = self.graph.values[op.output]
        if info.dtype.is_floating_point or self.placement.kinds[op.output] == Role.INDEX:
            return None
        return f'{op.kind} of {info.dtype}: indices can be moved and gathered by, nothing else'

    def _constant_weight(self, op: Op) -> Optional[str]:
        weight = KINDS[op.kind].weight
        moving = [n for n in op.inputs[weight:weight + 2]
                  if not self.graph.values[n].is_constant]
        return f'the weight or bias of {op.kind} depends on the image; use matmul' \
            if moving else None

    def _one_side_int8(self, op: Op) -> Optional[str]:
        found = [self.dtype(name) for name in op.inputs]
        # A constant side gets the type that fits, an accumulator is refused by its own rule.
        fault = None if None in found or 'int32' in found else product_fault(*found)
        return fault and f'a matrix product {fault}'

    def _sampling(self, op: Op) -> Optional[str]:
        wanted = [KINDS[op.kind].operand_dtypes[i] for i in range(2)]
        found = [self.dtype(n) or w for n, w in zip(op.inputs, wanted)]
        return f'grid_sample takes an {wanted[0]} image and an {wanted[1]} grid, found ' \
            f'{found[0]} and {found[1]}; change the qconfig rule' if found != wanted else None

    def _reduction(self, op: Op) -> Optional[str]:
        shape = self.graph.values[op.inputs[0]].shape
        count = prod(shape[d] for d in op.params['dims'])
        return sum_fault(count, self.dtype(op.inputs[0]))


OF_KIND: Dict[str, Callable[[_Refusals, Op], Optional[str]]] = {
    'matmul': _Refusals._one_side_int8,
    'grid_sample': _Refusals._sampling,
}


def refuse_without_integer_form(graph: OpGraph, placement: Placement, dtypes: Dtypes) -> None:
    """Raise for the first op that no later step takes.

    Args:
        graph (OpGraph): Deployed graph.
        placement (Placement): Of its values.
        dtypes (dict[str, str]): Own value -> dtype.

    Raises:
        BpuError: The message names the op's site and why.
    """
    rules = _Refusals(graph, placement, dtypes)
    for op in graph.ops:
        for reason in rules.reasons(op):
            if reason:
                raise BpuError(f'{op.site} cannot run on integers: {reason}')
