"""A quantized network and its float model, walked through side by side on one image.

Both are the fake-quantized HBIR, with its fake quantizers on and off: so no detector runs twice,
and of the tensors only those are alive that something still reads.

A top-k may choose, or order, other rows in the two models, and every tensor behind it would differ
by that alone. So the float model follows here: it takes its own values of the rows that the
quantized model chose. What differs then is what was rounded. (:meth:`RoundingWalk.floats` lets it
choose.)
"""
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.analysis.tensor_errors import Grid
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, find_function, operations, site_of
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT
from mmdet_bpu.hbir.qnt_dialect import fake_quant_range, fake_quant_scale
from mmdet_bpu.hbir.reference import (FloatReference, evaluate, evaluate_value, fake_quantize,
                                      last_uses, public_names)
from mmdet_bpu.hbir.types import value_type

TOPK = 'hbir.topk'
Seen = Callable[[int, Tensor, Tensor, Tensor], None]
"""Told of each rounding: its number, what the float model has, what was given, what came out."""


class RoundedConstant(NamedTuple):
    """A weight, or another constant operand, and what its fake quantizer makes of it.

    Attributes:
        op (Operation): The fake quantizer.
        before (Tensor), after (Tensor): float32 of one shape.
    """
    op: Operation
    before: Tensor
    after: Tensor


class RoundingWalk:
    """Runs a module with and without its fake quantizers, operation by operation.

    Args:
        module (ModuleOp): Fake-quantized HBIR.
        floats (ModuleOp, optional): The same network with the weights of another checkpoint, for
            the float side. Defaults to ``module``: the same weights.

    Attributes:
        roundings (list[Operation]): Fake quantizers of what depends on the image, in order.
        selects (bool): Whether there is a top-k.

    Raises:
        BpuError: The two are not the same network.
    """

    def __init__(self, module: ModuleOp, floats: Optional[ModuleOp] = None) -> None:
        self._sides = [_Side(module, True), _Side(floats or module, False)]
        first, second = self._sides
        _refuse_another_network(first.operations, second.operations)
        self.roundings = [op for op in first.operations
                          if op.name == FAKE_QUANT and first.is_variable(op)]
        self.selects = any(op.name == TOPK and first.is_variable(op) for op in first.operations)
        self._alone = FloatReference(floats or module, quantize=False)

    def constants(self) -> Iterator[RoundedConstant]:
        """Weights and other constants of ``module`` that have a fake quantizer, in order."""
        side = self._sides[0]
        for op in side.operations:
            if op.name == FAKE_QUANT and not side.is_variable(op):
                before = evaluate_value(op.operands[0], {})
                yield RoundedConstant(op, before, fake_quantize(op, before))

    @torch.no_grad()
    def run(self, image: Tensor, seen: Seen) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
        """Walk through one image.

        Args:
            image (Tensor): Normalised float32 image (1, H, W, C).
            seen (Callable): Told of each rounding.

        Returns:
            tuple[dict, dict]: Outputs by name, of the float model, which follows the quantized
            one's choices, and of the quantized one.

        Raises:
            BpuError: The image has not the shape of the input.
        """
        quantized, floats = self._sides
        alive = [side.begin(image) for side in self._sides]
        number = 0
        for index, op in enumerate(quantized.operations):
            if quantized.is_variable(op):
                other = floats.operations[index]
                results = [quantized.run(op, alive[0])]
                results.append(_chosen_alike(other, alive[1], results[0])
                               if op.name == TOPK else floats.run(other, alive[1]))
                if op.name == FAKE_QUANT:
                    seen(number, results[1][0], alive[0][op.operands[0]], results[0][0])
                    number += 1
                for values, each, made in zip(alive, (op, other), results):
                    values.update(zip(each.results, made))
            for side, values in zip(self._sides, alive):
                for value in side.dead[index]:
                    values.pop(value, None)
        return floats.taken(alive[1]), quantized.taken(alive[0])

    def floats(self, image: Tensor) -> Dict[str, Tensor]:
        """Outputs of the float model alone, with its own choices."""
        name = self._sides[1].input_name
        return self._alone.run({name: image})


def _chosen_alike(op: Operation, values: Dict[SSAValue, Tensor], chosen: List[Tensor]
                  ) -> List[Tensor]:
    """Results of a top-k that chooses what another one did."""
    indices = chosen[1]
    return [values[op.operands[0]].gather(attrs_of(op)['dim'], indices.long()), indices]


class _Side:
    """One module with its fake quantizers on or off; what does not depend on the image is kept."""

    def __init__(self, module: ModuleOp, quantize: bool) -> None:
        function = find_function(module)
        self.quantize = quantize
        self.operations = list(operations(module))
        self.argument, = function.body.block.args
        self.input_name, = public_names(function.arg_attrs)
        returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
        self.outputs = dict(zip(public_names(function.res_attrs), returned.operands))
        self.dead = last_uses(self.operations, self.outputs.values())
        self._variable = {self.argument}
        for op in self.operations:
            if any(operand in self._variable for operand in op.operands):
                self._variable.update(op.results)
        self._kept = self._constants()

    def is_variable(self, op: Operation) -> bool:
        """Whether what ``op`` makes depends on the image."""
        return op.results[0] in self._variable

    def _constants(self) -> Dict[SSAValue, Tensor]:
        """What variable operations read of the constants, each as this side has it."""
        read = {operand for op in self.operations if self.is_variable(op) for operand in op.operands}
        read.update(self.outputs.values())
        values: Dict[SSAValue, Tensor] = {}
        for op in self.operations:
            if not self.is_variable(op):
                values.update(zip(op.results, self.run(op, values)))
        return {value: tensor for value, tensor in values.items() if value in read}

    def begin(self, image: Tensor) -> Dict[SSAValue, Tensor]:
        """The values before the first operation."""
        expected = value_type(self.argument).shape
        if tuple(image.shape) != tuple(expected):
            raise BpuError(f'image: expected (N, H, W, C) {tuple(expected)}, found '
                           f'{tuple(image.shape)}; set bpu.input_shape to what the val data give')
        return {**self._kept, self.argument: image.to(torch.float32)}

    def run(self, op: Operation, values: Dict[SSAValue, Any]) -> List[Tensor]:
        """Results of one operation."""
        return evaluate(op, [values[operand] for operand in op.operands], self.quantize)

    def taken(self, values: Dict[SSAValue, Tensor]) -> Dict[str, Tensor]:
        """Outputs by name."""
        return {name: values[value] for name, value in self.outputs.items()}


def _refuse_another_network(first: List[Operation], second: List[Operation]) -> None:
    for op, other in zip(first, second):
        if (op.name, site_of(op)) != (other.name, site_of(other)) or \
                [value_type(v).shape for v in op.results] != [value_type(v).shape
                                                              for v in other.results]:
            raise BpuError(f'the float model is another network: at {site_of(op)} one has {op.name}, '
                           f'the other {other.name} at {site_of(other)}')
    if len(first) != len(second):
        raise BpuError(f'the float model is another network: one has {len(first)} operations, the '
                       f'other {len(second)}')


def grid_of(op: Operation) -> Grid:
    """Integers that a fake quantizer with one scale rounds to."""
    bits, scale, axis = fake_quant_scale(op)
    assert axis is None, f'{site_of(op)} has a scale per channel'
    low, high = fake_quant_range(bits, False)
    return Grid(float(scale), low, high)
