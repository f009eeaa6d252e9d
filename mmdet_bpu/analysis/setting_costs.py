"""About how many cycles a setting takes, from the graph alone: where a search looks next.

What reads and writes an int16 tensor moves twice the bytes, products of it are slower, and what is added
to it or multiplied with it is widened first. What leaves the chip and moves from one layout to
another are left out: the cost model says what a setting costs once it is lowered.
"""
from dataclasses import dataclass
from math import prod
from typing import Dict, List, Mapping, Optional, Tuple

from mmdet_bpu.compiler.march import March
from mmdet_bpu.compiler.unit_work import filled_lanes
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import QuantizedGraph, Role
from mmdet_bpu.program.kinds import KINDS, Cost, Group, Kind

ONE_TYPE = ('add', 'sub', 'mul')
"""Kinds whose operands have one dtype: the narrower is read, written wide and read wide."""
WIDENED = 4
"""Bytes more of an element that is."""


@dataclass(frozen=True)
class _OpCost:
    """Tensors that an op moves, (name, elements) with those it reads first; slots of a product."""
    read: Tuple[Tuple[str, int], ...]
    written: Optional[Tuple[str, int]]
    slots: int
    one_type: bool


class SettingCosts:
    """Of the settings of one network on one march.

    Args:
        network (QuantizedGraph): Its dtypes are those of what no setting names.
        march (March): Whose figures are used.
    """

    def __init__(self, network: QuantizedGraph, march: March) -> None:
        self.march = march
        self.dtypes = {network.name(value): config.dtype
                       for value, config in network.configs.items()}
        self._ops = _op_costs(network)

    def cycles(self, setting: Mapping[str, str]) -> float:
        """Of all ops, at the nominal clock."""
        wide = {name for name, dtype in {**self.dtypes, **setting}.items() if dtype == 'int16'}
        return sum(self._cycles(op, wide) for op in self._ops)

    def prices(self, setting: Mapping[str, str]) -> Dict[str, float]:
        """Cycles that int16 in one tensor more takes, by tensor, all others as in ``setting``."""
        around: Dict[str, List[_OpCost]] = {name: [] for name in setting}
        for op in self._ops:
            for name in {name for name, _ in (*op.read, *([op.written] if op.written else []))}:
                if name in around:
                    around[name].append(op)
        wide = {name for name, dtype in {**self.dtypes, **setting}.items() if dtype == 'int16'}
        return {name: sum(self._cycles(op, wide | {name}) - self._cycles(op, wide - {name})
                          for op in ops) for name, ops in around.items()}

    def _cycles(self, op: _OpCost, wide: set) -> float:
        if op.slots:
            slower = any(name in wide for name, _ in op.read)
            return op.slots * (self.march.int16_slowdown.value if slower else 1.0) \
                / self.march.int8_macs_per_cycle.value
        tensors = [*op.read, *([op.written] if op.written else [])]
        moved = sum(elements * (2 if name in wide else 1) for name, elements in tensors)
        if op.one_type and any(name in wide for name, _ in op.read):
            moved += WIDENED * sum(elements for name, elements in op.read if name not in wide)
        return moved / self.march.vector_bytes_per_cycle.value


def _op_costs(network: QuantizedGraph) -> List[_OpCost]:
    graph, placement, costs = network.graph, network.placement, []

    def tensor(value: str) -> Optional[Tuple[str, int]]:
        if placement.kinds.get(value) not in (Role.OWN, Role.ALIAS):
            return None
        own = placement.integers(value)
        return (network.name(own), prod(graph.values[value].shape)) \
            if own in placement.group else None

    for op in graph.ops:
        row = KINDS[op.kind]
        if placement.kinds[op.output] == Role.ALIAS or row.cost is Cost.FREE:
            continue
        read = tuple(filter(None, map(tensor, dict.fromkeys(graph.variable_inputs(op)))))
        slots = _slots(graph, op, row) if row.group is Group.PRODUCT else 0
        costs.append(_OpCost(read, tensor(op.output), slots, op.kind in ONE_TYPE))
    return costs


def _slots(graph: OpGraph, op: Op, row: Kind) -> int:
    """Multiply-accumulates of a product with the array's idle lanes."""
    out = graph.values[op.output].shape
    if row.weight is None or op.kind == 'linear':
        return prod(out[:-1]) * filled_lanes(graph.values[op.inputs[0]].shape[-1]) \
            * filled_lanes(out[-1])
    weight = graph.values[op.inputs[1]].shape  # filters, channels of a group, window
    return prod(out) // out[1] * prod(weight[2:]) * filled_lanes(weight[1]) * filled_lanes(out[1])
