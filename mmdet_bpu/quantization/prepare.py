"""Make a float detector ready for calibration, QAT and export, in place."""
from typing import Dict, Tuple

import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.detector_path import regions_of
from mmdet_bpu.graph.deploy_graph import deploy_graph, open_attention
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.graph.regions import enter_region_classes
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.fold import fold_batch_norms
from mmdet_bpu.quantization.placement import Placement, own_values, place
from mmdet_bpu.quantization.qconfig import TensorConfig, assign
from mmdet_bpu.quantization.quant_mode import Quantization, QuantizedDetector, SitePlan
from mmdet_bpu.quantization.refusals import refuse_without_integer_form

IMAGE = 'image'


class QuantizedGraph:
    """The deployed graph with the class and config of every value.

    Args:
        model (nn.Module): Detector with open attention and folded batch norms.
        settings (dict): The ``bpu`` settings: ``input_shape`` and ``qconfig`` are read.
    """

    def __init__(self, model: nn.Module, settings: dict) -> None:
        shape = tuple(settings['input_shape'])
        self.captured, self.graph = deploy_graph(model, shape)
        self.placement: Placement = place(self.graph)
        self.configs: Dict[str, TensorConfig] = assign(self.graph, self.placement,
                                                       settings.get('qconfig') or [], model)
        self.producers = self.graph.producers()
        refuse_without_integer_form(self.graph, self.placement, {
            value: config.dtype for value, config in self.configs.items()})

    def name(self, value: str) -> str:
        """Public name of the quantizer of an own value: the first site of its group."""
        return self.site_of(self.placement.find(value))

    def site_of(self, value: str) -> str:
        """Public site name of a value; the input is called ``image``."""
        return IMAGE if value in self.graph.inputs else self.producers[value].site

    def config(self, value: str) -> TensorConfig:
        """Config of the integers that ``value`` holds."""
        return self.configs[self.placement.integers(value)]

    def fills(self, op: Op) -> bool:
        """Whether ``op`` puts a number other than zero among the integers of its input."""
        return bool(op.params.get('fill')) and self.placement.kinds[op.output] == 'alias'

    def constant_dtype(self, op: Op, index: int) -> str:
        """dtype of a constant operand: that of what it meets.

        int8 in a matrix product, and int16 for a sampling grid, whatever they meet.
        """
        fixed = KINDS[op.kind].operand_dtypes.get(index)
        if fixed is not None:
            return fixed
        others = [n for n in self.graph.variable_inputs(op)]
        dtype = self.config(others[0]).dtype if others else 'int8'
        return 'int16' if dtype == 'int32' else dtype


def build_plan(quantized: QuantizedGraph) -> Tuple[Dict[tuple, SitePlan], Dict[str, str]]:
    """Runtime plan, and for every own value the name of its quantizer."""
    graph, placement = quantized.graph, quantized.placement
    names = {v: quantized.name(v) for v in own_values(graph, placement)}
    plan: Dict[tuple, SitePlan] = {}
    for op in graph.ops:
        if placement.kinds[op.output] == 'own':
            if op.key is None:
                raise BpuError(f'{op.site}: a tensor inside one call needs a quantizer; '
                               'the call must be written out in simpler functions')
            plan.setdefault(op.key, SitePlan()).output = names[op.output]
        if quantized.fills(op):
            integers = placement.integers(op.output)
            plan.setdefault(op.key, SitePlan()).filled = (names[integers],
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
                site.weight = (position, 'int8')
            else:
                continue
            plan[op.call] = site
    return plan, names


def report_rows(quantized: QuantizedGraph, names: Dict[str, str]) -> list:
    """One dict per own value: site, op, shape, dtype, rule and the quantizer that it shares."""
    rows = []
    for value, quantizer in names.items():
        config = quantized.configs[value]
        op = quantized.producers.get(value)
        rows.append(
            dict(
                site=quantized.site_of(value),
                op=op.params.get('fn', op.kind) if op else 'input',
                shape=list(quantized.graph.values[value].shape),
                dtype=config.dtype,
                rule=config.rule,
                quantizer=quantizer))
    return rows


def prepare(model: nn.Module, bpu: dict) -> nn.Module:
    """Open attention, fold batch norms, capture, and insert fake quantizers, in place.

    Args:
        model (nn.Module): A float mmdet detector with its final weights.
        bpu (dict): ``input_shape`` (height, width) in px, ``qconfig`` rules, and
            ``calibration.observer`` (name or dict; ``'mse'`` by default).

    Returns:
        nn.Module: ``model``; its class is now a subclass of its stock class, and all that was
        added to its state dict is under ``quant.``. The state is ``'off'``.

    Raises:
        BpuError: The model is prepared already, cannot be captured, holds an op without an integer
            form (its site is named), or a rule matches nothing.
    """
    if hasattr(model, 'quant'):
        raise BpuError(f'{type(model).__name__} is prepared already')
    regions = regions_of(model)
    open_attention(model)
    folded = fold_batch_norms(model, tuple(bpu['input_shape']))
    quantized = QuantizedGraph(model, bpu)
    plan, names = build_plan(quantized)
    observer = (bpu.get('calibration') or {}).get('observer', 'mse')
    quantizers = {}
    for value, name in names.items():
        config = quantized.configs[value]
        if name not in quantizers:
            quantizers[name] = FakeQuantizer(config.dtype, config.observer or observer,
                                             config.scale)
    settings = dict(bpu, folded=[list(pair) for pair in folded])
    quant = Quantization(plan, quantized.captured.opened, quantizers,
                         report_rows(quantized, names), settings)
    model.add_module('quant', quant.to(next(model.parameters()).device))
    enter_region_classes(model, regions, QuantizedDetector)
    return model


def quantization_of(model: nn.Module) -> Quantization:
    """The quantization of a prepared detector, looked up through wrappers (DDP, EMA)."""
    inner = model
    while not hasattr(inner, 'quant') and hasattr(inner, 'module'):
        inner = inner.module
    if not isinstance(getattr(inner, 'quant', None), Quantization):
        raise BpuError(f'{type(inner).__name__} is a float model; call prepare() first')
    return inner.quant


def set_quant_state(model: nn.Module, state: str) -> None:
    """Switch all fake quantizers: ``off``, ``observe``, ``quantize`` or ``both``."""
    quantization_of(model).set_state(state)


@torch.no_grad()
def finish_calibration(model: nn.Module) -> None:
    """Turn what was observed into scales, the same on all ranks.

    Raises:
        BpuError: A quantizer has seen nothing; the message names its site.
    """
    quant = quantization_of(model)
    for key, quantizer in quant.quantizers.items():
        quantizer.finish_calibration()
        if quantizer.dtype != 'int32' and not bool(quantizer.calibrated):
            raise BpuError(f'{key.replace("|", ".")} has seen no image: run calibration batches '
                           'in state "observe" first')


def model_report(model: nn.Module) -> list:
    """Per-tensor rows with their scales as they are now; ``calibrated`` says if they count."""
    quant = quantization_of(model)
    rows = []
    for row in quant.rows:
        quantizer = quant.quantizer(row['quantizer'])
        rows.append(
            dict(row, scale=quantizer.scale.item(), calibrated=bool(quantizer.calibrated)))
    return rows
