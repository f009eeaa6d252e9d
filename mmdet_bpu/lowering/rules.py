"""Where the lowerings of the kinds of operations register themselves.

    @lowers('conv2d')
    def conv2d(values: LoweredValues, op: Op) -> Stored: ...
"""
from typing import Callable, Dict

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.lowered_values import LoweredValues, Stored
from mmdet_bpu.program.kinds import KINDS

Rule = Callable[[LoweredValues, Op], Stored]
LOWERINGS: Dict[str, Rule] = {}
"""Kind -> its lowering."""


def lowers(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a lowering of one or more kinds of :data:`mmdet_bpu.program.kinds.KINDS`."""

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            assert kind in KINDS and kind not in LOWERINGS, kind
            LOWERINGS[kind] = rule
        return rule

    return register


def hbir_name(op: Op) -> str:
    """Full name of the HBIR operation of a kind."""
    return f'hbir.{KINDS[op.kind].hbir}'
