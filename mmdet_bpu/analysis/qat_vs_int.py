"""QAT against integer, op by op, on the same inputs.

One rounding is what lies between neighbouring fake quantizers. For each, the integers that went in
during an integer run are dequantized, the float operations evaluated on them as QAT does, fake
quantized, and compared with the integers that came out, in LSB of the result. So an error of one
op is not mixed with what the ops before it did.

Reported apart: composites (softmax, norms) as wholes, and products without a fake quantizer (the
scores), which have no LSB in QAT.

What differs by more than 1 LSB, or 2 of a composite, is held against the contract: the integers
must be as near to the exact value as its roundings let them (:mod:`mmdet_bpu.analysis.op_bounds`,
:mod:`mmdet_bpu.analysis.contract_intervals`). If they are not, it is a defect (:func:`defects`).
"""
import math
from collections import defaultdict
from typing import Any, Dict, Iterable, List, Union

import torch
from torch import Tensor, nn
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from mmdet_bpu.analysis.composites import Composite, find_composites
from mmdet_bpu.analysis.contract_intervals import contract_interval
from mmdet_bpu.analysis.exact_values import ROOM, Integers, exact_value, in_lsb
from mmdet_bpu.analysis.op_bounds import contract_bound
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.builder import constant_array, operations, site_of
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT, Conversion
from mmdet_bpu.hbir.reference import evaluate_value, integers_and_scale
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.program.numerics import saturate
from mmdet_bpu.program.program import TensorSpec
from mmdet_bpu.quantization import quantized_graphs

# What is known to part an op's integers from QAT's rounding, for ops that differ by more than 1.
CAUSES = {
    'table': 'piecewise linear between 64 x 64 nodes, which the function bends between',
    'add': 'each side has a 15-bit multiplier: up to 2**-15 of its magnitude',
    'sub': 'each side has a 15-bit multiplier: up to 2**-15 of its magnitude',
    'deform_conv2d': 'samples keep as many bits below their LSB as the accumulator has room for',
    'grid_sample': 'positions are multiples of 2**-fraction_bits px',
    'resize': 'positions are multiples of 2**-fraction_bits px',
}
MULTIPLIER_CAUSE = 'a 15-bit multiplier is up to 2**-15 of the result off'
INSIDE_QAT = 'roundings and saturation inside, which QAT has as well'
INSIDE = 'roundings and saturation inside, and differences of 1 LSB that grow on the way'

USUAL_LSB, USUAL_WHOLE_LSB = 1, 2
"""Differences, of an op and of a composite, that need no derivation."""


def is_rounding(op: Any) -> bool:
    """Whether ``op`` is a fake quantizer of something that depends on the image."""
    return isinstance(op, Operation) and op.name == FAKE_QUANT \
        and constant_array(op.operands[0]) is None


def integers_before(value: SSAValue) -> List[SSAValue]:
    """Rounded values that ``value`` is computed from without another rounding between."""
    leaves: Dict[SSAValue, None] = {}
    seen, pending = set(), [value]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        op = current.owner
        if is_rounding(op):
            leaves[current] = None
        elif isinstance(op, Operation):
            pending += op.operands
    return list(leaves)


class _Comparison:
    """Follows an integer run and compares each rounding as soon as its result is there."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        self.steps = [op for op in operations(conversion.result) if op.name != 'bpu.constant']
        self.position = 0
        self.integers: Dict[SSAValue, Tensor] = {}
        self.ops: List[dict] = []
        self.unrounded: List[dict] = []
        self.wholes: List[dict] = []
        self.of_result: Dict[SSAValue, List[SSAValue]] = defaultdict(list)
        composites = find_composites(conversion.module, is_rounding)
        self.composites = {composite.output: composite for composite in composites}
        self.uses: Dict[SSAValue, int] = defaultdict(int)
        for value, ssa in conversion.emitted.items():
            if is_rounding(value.owner) or value.owner in conversion.products:
                self.of_result[ssa].append(value)
                for leaf in self._leaves(value):
                    self.uses[leaf] += 1

    def _leaves(self, value: SSAValue) -> List[SSAValue]:
        source = value.owner.operands[0] if is_rounding(value.owner) else value
        leaves = integers_before(source)
        if value in self.composites:
            leaves += self.composites[value].inputs
        return leaves

    def store(self, ssa: SSAValue, tensor: Tensor) -> None:
        """A value of the integer run."""
        for value in self.of_result.get(ssa, ()):
            if not isinstance(value.owner.operands[0], BlockArgument):
                self._compare(value, ssa, tensor)
            if self.uses[value]:
                self.integers[value] = tensor

    def trace(self, instruction, inputs: List[Tensor], results: List[Tensor]) -> None:
        """Called by the interpreter after each instruction, in the order of the module."""
        if self.position < len(self.steps):  # copies to the outputs come after the module's ops
            step = self.steps[self.position]
            self.position += 1
            for ssa, tensor in zip(step.results, results):
                self.store(ssa, tensor)

    def _floats(self, values: Iterable[SSAValue]) -> Dict[SSAValue, Tensor]:
        """QAT's values of integers: float32 of the integer times the float32 scale."""
        scales = self.conversion.integers
        return {v: self.integers[v].float() * torch.tensor(scales[v].scale) for v in values}

    def _exact(self, values: Iterable[SSAValue]) -> Integers:
        return {v: (self.integers[v], self.conversion.integers[v].scale) for v in values}

    def _compare(self, value: SSAValue, ssa: SSAValue, tensor: Tensor) -> None:
        op = value.owner
        row = dict(site=site_of(op), kind=ssa.owner.name.split('.')[1],
                   dtype=value_type(ssa).dtype, elements=tensor.numel())
        leaves = self._leaves(value)
        if is_rounding(op):
            before = integers_before(op.operands[0])
            trained = evaluate_value(op.operands[0], self._floats(before))
            row.update(_difference(op, trained, tensor))
            if row['max_lsb'] > USUAL_LSB:
                row['cause'] = self._cause(row)
                row.update(self._derive(value, trained, self._exact(before), tensor))
            self.ops.append(row)
            if value in self.composites:
                self._compare_whole(self.composites[value], tensor)
        else:
            real = evaluate_value(value, self._floats(leaves))
            row.update(_absolute_difference(real, tensor, value_type(ssa).scale))
            self.unrounded.append(row)
        for leaf in leaves:
            self.uses[leaf] -= 1
            if not self.uses[leaf]:
                del self.integers[leaf]

    def _cause(self, row: dict) -> str:
        for note in self.conversion.notes:
            if note['site'] == row['site'] and note['rule'] == 'bound_accumulators':
                return note['text']
        return CAUSES.get(row['kind'], MULTIPLIER_CAUSE)

    def _derive(self, value: SSAValue, trained: Tensor, integers: Integers,
                tensor: Tensor) -> dict:
        """The largest difference that the contract and training's float32 allow together."""
        type_ = self.conversion.integers[value]
        exact = exact_value(value.owner.operands[0], integers)
        exact, trained = (in_lsb(real, type_.scale, type_.dtype) for real in (exact, trained))
        bound = contract_bound(self.conversion, value).at(exact) + ROOM
        return dict(
            bound_lsb=math.floor((bound + (trained - exact).abs()).max().item()) + 1,
            within_contract=bool(((tensor.double() - exact).abs() <= 0.5 + bound).all()))

    def _derive_whole(self, output: SSAValue, qat: Tensor, integers: Integers,
                      tensor: Tensor) -> dict:
        type_ = self.conversion.integers[output]
        interval = contract_interval(self.conversion, output, integers)
        if interval is None:
            return dict(bound_lsb=USUAL_WHOLE_LSB, within_contract=False)
        trained = in_lsb(qat, type_.scale, type_.dtype).round()
        reach = torch.maximum(interval.high - trained, trained - interval.low)
        inside = (interval.low <= tensor) & (tensor <= interval.high)
        return dict(bound_lsb=int(reach.max()), within_contract=bool(inside.all()))

    def _compare_whole(self, whole: Composite, tensor: Tensor) -> None:
        op = whole.output.owner
        real = evaluate_value(op.operands[0], self._floats(whole.inputs), quantize=False)
        qat = evaluate_value(op.operands[0], self._floats(whole.inputs))
        row = dict(site=whole.site, kind=whole.kind, elements=tensor.numel(),
                   dtype=self.conversion.integers[whole.output].dtype,
                   **_difference(op, real, tensor))
        row.update({f'qat_{name}': v for name, v in _difference(op, qat, tensor).items()})
        if row['max_lsb'] > 1:
            row['cause'] = INSIDE_QAT if row['qat_max_lsb'] <= 1 else INSIDE
        if row['qat_max_lsb'] > USUAL_WHOLE_LSB:
            row.update(self._derive_whole(whole.output, qat, self._exact(whole.inputs), tensor))
        self.wholes.append(row)


def _difference(op: Operation, real: Tensor, integers: Tensor) -> dict:
    distance = (integers_and_scale(op, real)[0] - integers.float()).abs()
    differing = int((distance > 0).sum())
    return dict(differing=differing, differing_share=differing / max(distance.numel(), 1),
                max_lsb=int(distance.max()) if distance.numel() else 0)


def _absolute_difference(real: Tensor, integers: Tensor, scale: float) -> dict:
    distance = (integers.double() * scale - real.double()).abs().max().item()
    return dict(max_difference=distance, largest=real.abs().max().item())


def defects(result: Dict[str, Any]) -> List[dict]:
    """Rows of ops and composites whose difference does not follow from the contract.

    Args:
        result (dict): Of :func:`compare_qat_int`.
    """
    return [row for row in (*result['ops'], *result['wholes'])
            if not row.get('within_contract', True)]


def summarize(rows: List[dict]) -> Dict[str, dict]:
    """Rows by kind and dtype, e.g. ``'conv2d si8'``: ops, elements, differing share, max LSB."""
    groups: Dict[str, List[dict]] = defaultdict(list)
    for row in rows:
        groups[f'{row["kind"]} {row["dtype"]}'].append(row)
    return {name: dict(ops=len(group), **_totals(group)) for name, group in sorted(groups.items())}


def _totals(rows: List[dict]) -> dict:
    elements = sum(row['elements'] for row in rows)
    return dict(elements=elements,
                differing_share=sum(row['differing'] for row in rows) / max(elements, 1),
                max_lsb=max((row['max_lsb'] for row in rows), default=0))


def _image_integers(spec: TensorSpec, image: Tensor) -> Tensor:
    if tuple(image.shape) != spec.shape:
        raise BpuError(f'image: expected the normalised image {spec.shape} (N, H, W, C), float or '
                       f'{spec.dtype}, found shape {tuple(image.shape)}')
    if image.dtype == TORCH_DTYPES[spec.dtype]:
        return image
    return saturate(torch.div(image.float(), torch.tensor(spec.scale)).round(), spec.dtype)


@torch.no_grad()
def compare_qat_int(source: Union[nn.Module, ModuleOp, Conversion],
                    image: Tensor) -> Dict[str, Any]:
    """Compare every rounding of one image's integer run with QAT's.

    Args:
        source (nn.Module | ModuleOp | Conversion): A prepared, calibrated detector, its HBIR, or
            for several images what :func:`mmdet_bpu.hbir.passes.conversion_of` made of that.
        image (Tensor): Normalised float32 image (1, H, W, 3), or its integers.

    Returns:
        dict: ``ops`` (one dict per rounding: site, kind, dtype, elements, differing,
        differing_share, max_lsb, and where that exceeds 1 the cause, the largest difference
        ``bound_lsb`` that the contract and training's float32 allow, and ``within_contract``,
        whether every element is as near to the exact value as the contract says), ``by_kind``,
        ``max_lsb``, ``differing_share``, ``wholes`` (softmax and norms from their input to their
        output integers against the float function without roundings inside, its cause above 1;
        ``qat_...``: against QAT, which has those roundings; where that exceeds 2, ``bound_lsb``
        and ``within_contract``), ``unrounded`` (products without a fake quantizer: largest
        difference and largest magnitude, in the output's unit).

    Raises:
        BpuError: The model has no integer form, or the image does not fit it.
    """
    if isinstance(source, nn.Module):
        source = export_networks(quantized_graphs(source))
    conversion = conversion_of(source) if isinstance(source, ModuleOp) else source
    interpreter = Interpreter(program_from_module(conversion.result))
    comparison = _Comparison(conversion)
    spec = interpreter.inputs[0]
    integers = _image_integers(spec, image)
    block = next(op for op in conversion.result.ops).body.block
    comparison.store(block.args[0], integers)
    interpreter.run({spec.name: integers}, comparison.trace)
    totals = _totals(comparison.ops)
    return dict(ops=comparison.ops, by_kind=summarize(comparison.ops), max_lsb=totals['max_lsb'],
                differing_share=totals['differing_share'], wholes=comparison.wholes,
                unrounded=comparison.unrounded)
