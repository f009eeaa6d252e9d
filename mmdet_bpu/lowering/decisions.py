"""The decisions of a quantized graph about the values of the HBIR that it was lowered to."""
from typing import Dict, List

from xdsl.ir import SSAValue

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.graph.quantized_graph import QuantizedGraph, Role
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT, Decision, Form
from mmdet_bpu.program.kinds import KINDS


def decisions_of(network: QuantizedGraph, values: Dict[str, SSAValue]) -> List[Decision]:
    """One decision per value that has integers; those that an op alone makes have none.

    Args:
        network (QuantizedGraph): What was lowered.
        values (dict[str, SSAValue]): Value of its graph -> what it was lowered to, after its
            fake quantizer where it has one.
    """
    placement = network.placement
    decided = []
    for op in network.graph.ops:
        role, value = placement.kinds[op.output], values[op.output]
        if role is Role.OWN:
            decided.append(_own(network, values, op))
        elif role is Role.ALIAS:
            source = values[placement.integers(op.output)]
            if value is not source:  # a permute may be nothing but another reading of the layout
                decided.append(Decision(op.site, value, Form.CARRIED, source,
                                        factor=placement.scale_factor(op.output)))
        elif role is Role.FUSED:
            decided.append(Decision(op.site, value, Form.FLOAT))
    return decided


def _own(network: QuantizedGraph, values: Dict[str, SSAValue], op: Op) -> Decision:
    placement, value = network.placement, values[op.output]
    if op.output in placement.root:
        return Decision(op.site, value, Form.TABLE, values[placement.root[op.output]])
    last, relu, residual = op, False, None
    if last.kind == 'relu':
        relu, last = True, network.producers[last.inputs[0]]
    fused = [n for n in last.inputs if placement.kinds.get(n) is Role.FUSED]
    if last.kind == 'add' and fused:
        residual = values[next(n for n in last.inputs if n != fused[0])]
        last = network.producers[fused[0]]
    if KINDS[last.kind].weight is None:
        return Decision(op.site, value, Form.ROUNDED, relu=relu)
    product = values[last.output]
    if product.owner.name == FAKE_QUANT:
        product = product.owner.operands[0]
    return Decision(op.site, value, Form.PRODUCT, product, residual, relu)
