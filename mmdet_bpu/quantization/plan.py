"""What happens at each call of a prepared detector, read off its quantized graph."""
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.graph.opgraph import transposed_groups
from mmdet_bpu.graph.quantized_graph import WEIGHT_DTYPE, QuantizedGraph
from mmdet_bpu.program.kinds import KINDS


@dataclass
class SitePlan:
    """What happens at one site.

    Attributes:
        output (str, optional): Quantizer of the result.
        operands (dict[int, str]): Position among the call's tensors -> quantizer (the input
            image, and constants that share the scale of their group).
        constants (dict[int, str]): Position -> dtype of a constant; its scale is its largest
            magnitude, computed at each call.
        weight (tuple, optional): Position and dtype of a weight, scaled per output channel; the
            groups of a transposed convolution or None; its public name.
        filled (tuple[str, float], optional): The call puts a number among the integers of this
            quantizer, whose scale is to be multiplied by a factor.
        output_shape (tuple[int]): As it was captured, with one image.
        operand_shapes (list[tuple[int]]): Likewise, of the call's tensors by position.
    """
    output: Optional[str] = None
    operands: Dict[int, str] = field(default_factory=dict)
    constants: Dict[int, str] = field(default_factory=dict)
    weight: Optional[tuple] = None
    filled: Optional[Tuple[str, float]] = None
    output_shape: Tuple[int, ...] = ()
    operand_shapes: List[Tuple[int, ...]] = field(default_factory=list)


def build_plan(quantized: QuantizedGraph, captured: CapturedGraph) -> Dict[tuple, SitePlan]:
    """Runtime key -> plan.

    Args:
        quantized (QuantizedGraph): What is quantized, and how.
        captured (CapturedGraph): The calls that it was made from.

    Raises:
        BpuError: A value inside one call needs a quantizer; the message names its site.
    """
    graph, placement = quantized.graph, quantized.placement
    names = {value: quantized.name(value) for value in quantized.own_values()}
    plan: Dict[tuple, SitePlan] = {}
    for op in graph.ops:
        if op.output in names:
            if op.key is None:
                raise BpuError(f'{op.site}: a tensor inside one call needs a quantizer; '
                               'the call must be written out in simpler functions')
            plan.setdefault(op.key, SitePlan()).output = names[op.output]
        if quantized.fills(op):
            integers = quantized.name(placement.integers(op.output))
            plan.setdefault(op.key, SitePlan()).filled = (integers,
                                                          placement.scale_factor(op.output))
        for index, (value, position) in enumerate(zip(op.inputs, op.arg_of_input)):
            if position is None:
                continue
            site = plan.get(op.call) or SitePlan()
            if value in graph.inputs:
                site.operands[position] = names[value]
            elif (op.output, index) in placement.constants:
                joined = placement.constants[op.output, index]
                if joined:
                    site.operands[position] = names[joined]
                else:
                    site.constants[position] = quantized.constant_dtype(op, index)
            elif KINDS[op.kind].weight == index:
                site.weight = (position, WEIGHT_DTYPE, transposed_groups(op),
                               quantized.weight_name(op))
            else:
                continue
            plan[op.call] = site
    _note_shapes(plan, captured)
    return plan


def _note_shapes(plan: Dict[tuple, SitePlan], captured: CapturedGraph) -> None:
    """Of the calls' own tensors: an operation's result may be shaped otherwise than its call's."""
    shapes = {node.name: captured.constants[node.target].shape if node.op == 'get_attr'
              else node.meta.get('shape') for node in captured.graph.nodes}
    for node in captured.graph.nodes:
        site = plan.get(node.meta.get('key'))
        if site is not None:
            site.output_shape = tuple(shapes[node.name] or ())
            site.operand_shapes = [tuple(shapes[name] or ()) for name in node.meta['tensor_args']]
