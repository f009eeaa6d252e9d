"""What the QAT model has at each of its roundings, and itself with products in float64.

Two float models that only sum in another order already differ where a value lies on the border of
two integers. How often that happens is the noise floor under any comparison of another runtime with
the QAT model: here products are computed in float64 and rounded to float32, all else is the same.
"""
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Tuple

import numpy as np
import torch
from torch import Tensor
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.analysis.node_differences import NodeComparison, NodeDifference, OutputDifference
from mmdet_bpu.analysis.rounding_walk import RoundingWalk
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.builder import find_function, operations
from mmdet_bpu.hbir.layout import Order
from mmdet_bpu.hbir.reference import (evaluate, evaluate_value, integers_and_scale, last_uses,
                                      public_names)
from mmdet_bpu.lowering.hbir import Lowering
from mmdet_bpu.program.kinds import KINDS, Group

PRODUCTS = {f'hbir.{kind.hbir}' for kind in KINDS.values() if kind.group is Group.PRODUCT}
Arrays = Dict[str, np.ndarray]


def evaluate_with_double_products(op: Operation, operands: List[Tensor], quantize: bool = True
                                  ) -> List[Tensor]:
    """As :func:`mmdet_bpu.hbir.reference.evaluate`, but products in float64, rounded to float32."""
    if op.name not in PRODUCTS:
        return evaluate(op, operands, quantize)
    return [each.float() for each in evaluate(op, [x.double() for x in operands], quantize)]


@dataclass
class Roundings:
    """What the QAT model has on one image.

    Attributes:
        image (Tensor): Normalised (1, C, H, W).
        stored (list[Tensor]): What each fake quantizer gives, in the order of the walk, as HBIR has it.
        real (dict[str, np.ndarray]), integers (dict[str, np.ndarray]): The same by value of the
            graph, in torch's order of dimensions; float32, and their integers as int16.
        outputs (dict[str, np.ndarray]): float32, by public name.
    """
    image: Tensor
    stored: List[Tensor]
    real: Arrays
    integers: Arrays
    outputs: Arrays


class QatRoundings:
    """Runs a network's QAT model, and the same with products in float64.

    Args:
        network (QuantizedGraph): With scales.
    """

    def __init__(self, network: QuantizedGraph) -> None:
        self.network = network
        lowering = Lowering(network.graph, network.scales)
        module = lowering.run()
        self._walk = RoundingWalk(module)
        of_ssa = {stored.ssa: (name, stored.order) for name, stored in reversed(
            list(lowering.values.items())) if name in network.scales.own}
        self._values: List[Tuple[str, Order]] = [
            of_ssa[op.results[0]] for op in self._walk.roundings]
        self._number = {op: number for number, op in enumerate(self._walk.roundings)}
        function = find_function(module)
        self._argument, = function.body.block.args
        returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
        self._outputs: Dict[str, SSAValue] = dict(zip(
            public_names(function.res_attrs), returned.operands))
        self._operations = list(operations(module))
        self._dead = last_uses(self._operations, self._outputs.values())

    def comparison(self) -> NodeComparison:
        """An empty comparison of all roundings and outputs."""
        network = self.network
        rounded = {value for value, _ in self._values}
        outputs = list(zip(network.graph.outputs, network.graph.output_names))
        return NodeComparison(
            {value: NodeDifference(network.site_of(value), network.scales.own[value][0])
             for value, _ in self._values},
            {public: OutputDifference() for value, public in outputs if value not in rounded},
            [value for value, _ in outputs if value in rounded])

    def of(self, image: Tensor) -> Roundings:
        """The QAT model on a normalised image (1, C, H, W)."""
        stored: List[Tensor] = []
        _, outputs = self._walk.run(
            image.permute(0, 2, 3, 1), lambda number, floats, given, out: stored.append(out))
        real = {value: _in_torch_order(out, order)
                for out, (value, order) in zip(stored, self._values)}
        scales = self.network.scales.own
        integers = {value: np.rint(x / np.float32(scales[value][1])).astype(np.int16)
                    for value, x in real.items()}
        return Roundings(image, stored, real, integers, _as_arrays(outputs))

    @torch.no_grad()
    def fed(self, roundings: Roundings) -> Tuple[Arrays, Arrays]:
        """Integers and outputs with products in float64, each rounding given QAT's values before it."""
        known: Dict[SSAValue, Tensor] = {
            op.results[0]: stored for op, stored in zip(self._walk.roundings, roundings.stored)}
        known[self._argument] = roundings.image.permute(0, 2, 3, 1)
        integers = {}
        for number, op in enumerate(self._walk.roundings):
            # In a copy: what lies between two roundings is not kept, it would be gigabytes.
            given = evaluate_value(op.operands[0], dict(known), run=evaluate_with_double_products)
            self._keep(integers, number, integers_and_scale(op, given)[0])
        return integers, _as_arrays({
            name: evaluate_value(value, dict(known), run=evaluate_with_double_products)
            for name, value in self._outputs.items()})

    @torch.no_grad()
    def alone(self, roundings: Roundings) -> Tuple[Arrays, Arrays]:
        """Integers and outputs with products in float64, from the image on."""
        values: Dict[SSAValue, Tensor] = {self._argument: roundings.image.permute(0, 2, 3, 1)}
        integers: Arrays = {}
        for op, dead in zip(self._operations, self._dead):
            operands = [values[operand] for operand in op.operands]
            if op in self._number:
                rounded, scale = integers_and_scale(op, operands[0])
                self._keep(integers, self._number[op], rounded)
                results = [rounded * scale]
            else:
                results = evaluate_with_double_products(op, operands)
            values.update(zip(op.results, results))
            for value in dead:
                del values[value]
        return integers, _as_arrays({name: values[value] for name, value in self._outputs.items()})

    def _keep(self, integers: Arrays, number: int, stored: Tensor) -> None:
        value, order = self._values[number]
        integers[value] = _in_torch_order(stored, order).astype(np.int16)


def compare(runs: Mapping[str, Callable[[Roundings], Tuple[Arrays, Arrays]]], qat: QatRoundings,
            images) -> Dict[str, NodeComparison]:
    """Each run against the QAT model over images.

    Args:
        runs (Mapping): Name -> what gives integers and outputs, such as :meth:`QatRoundings.fed`.
        qat (QatRoundings): What they are compared with.
        images (Iterable[Tensor]): Normalised, (1, C, H, W).
    """
    found = {name: qat.comparison() for name in runs}
    for image in images:
        roundings = qat.of(image)
        for name, run in runs.items():
            found[name].add(*run(roundings), roundings.integers, roundings.outputs)
    return found


def _as_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _in_torch_order(stored: Tensor, order: Order) -> np.ndarray:
    """A tensor as torch has it, of one that is stored in ``order``."""
    dims = [list(order).index(dim) for dim in range(len(order))]
    return stored.permute(dims).contiguous().numpy()
