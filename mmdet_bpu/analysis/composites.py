"""Softmax and norms in fake-quantized HBIR: written out in primitives, found again by their sites.

The primitives of one call have sites that differ in their last two parts only, such as
``neck.convs.0.gn/group_norm.mean.0``. Calls that repeat in one module are told apart by what they
are computed from.
"""
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.builder import operations, site_of

KINDS = ('softmax', 'layer_norm', 'group_norm')


@dataclass
class Composite:
    """One written-out call.

    Attributes:
        site (str): Common part of the sites, e.g. ``neck.convs.0.gn/group_norm``.
        kind (str): Name of the function.
        inputs (list[SSAValue]): Rounded values that enter it.
        output (SSAValue): Rounded value that leaves it.
    """
    site: str
    kind: str
    inputs: List[SSAValue]
    output: SSAValue


def composite_site(op: Operation) -> Optional[str]:
    """Site of the written-out call that ``op`` is part of, or None."""
    path, _, function = site_of(op).rpartition('/')
    name, _, rest = function.partition('.')
    return f'{path}/{name}' if name in KINDS and '.' in rest else None


def find_composites(module: ModuleOp, is_rounding: Callable[[Operation], bool]) -> List[Composite]:
    """All softmax and norm calls of a module, in order."""
    parts: Dict[Operation, int] = {}  # operation -> number of its call
    calls: List[List[Operation]] = []
    sites: List[str] = []
    for op in operations(module):
        site = composite_site(op)
        if site is None or op.name == 'hbir.constant':
            continue
        owners = {parts[v.owner] for v in op.operands if v.owner in parts}
        joined = sorted(n for n in owners if sites[n] == site)
        if not joined:
            joined = [len(calls)]
            calls.append([])
            sites.append(site)
        for other in joined[1:]:
            for member in calls[other]:
                parts[member] = joined[0]
            calls[joined[0]] += calls[other]
            calls[other] = []
        parts[op] = joined[0]
        calls[joined[0]].append(op)
    composites = []
    for site, call in zip(sites, calls):
        composite = _composite(site, set(call), is_rounding) if call else None
        if composite is not None:
            composites.append(composite)
    return composites


def _composite(site: str, members: set,
               is_rounding: Callable[[Operation], bool]) -> Optional[Composite]:
    outputs = [op.results[0] for op in members if is_rounding(op)
               and any(use.operation not in members for use in op.results[0].uses)]
    if len(outputs) != 1:
        return None
    inputs: Dict[SSAValue, None] = {}
    seen, pending = set(), [outputs[0].owner.operands[0]]
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        op = value.owner
        if isinstance(op, Operation) and op not in members and is_rounding(op):
            inputs[value] = None
        elif isinstance(op, Operation):
            pending += op.operands
    return Composite(site, site.rsplit('/', 1)[1], list(inputs), outputs[0])
