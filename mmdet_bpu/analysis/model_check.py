"""Whether a detector can be deployed, found out before it is trained.

The whole road is gone with ranges that are observed on one random image: prepare, export, integer
form, limits of the march, estimate. Which ops and types there are does not depend on the weights;
scales do, so the numbers mean nothing.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import nn

from mmdet_bpu.compiler.advice import DearLayer, dearest_layers
from mmdet_bpu.compiler.compile import compile_network
from mmdet_bpu.compiler.estimate import Estimate
from mmdet_bpu.compiler.legality import Finding, check_program, summarize
from mmdet_bpu.families.detector_path import device_of, example_samples
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import (finish_calibration, prepare, quantization_of, quantized_graphs,
                                    set_quant_state)
from mmdet_bpu.quantization.prepare import quantized_graph
from mmdet_bpu.steps import Step, silent

SEED = 0
BIAS_SPREAD = 0.02
STEPS = 6
MetadataOf = Callable[[nn.Module], dict]


@dataclass
class ModelCheck:
    """What a check found.

    Attributes:
        march (str): March that the limits are of.
        sites (list[dict]): One row per tensor: site, op, shape, dtype, rule that chose it.
        findings (list[Finding]): Errors first.
        notes (list[dict]): What the passes did: tables, widened operands.
        instructions (int): Length of the integer program.
        estimate (Estimate): Its latency and traffic on one core.
    """
    march: str
    sites: List[dict]
    findings: List[Finding] = field(default_factory=list)
    notes: List[dict] = field(default_factory=list)
    instructions: int = 0
    estimate: Optional[Estimate] = None

    @property
    def counts(self) -> Dict[str, int]:
        """Findings of each level."""
        return summarize(self.findings)

    @property
    def dearest(self) -> List[DearLayer]:
        """The three layers that take the most time, and what would make them cheaper."""
        return dearest_layers(self.estimate) if self.estimate else []

    def as_dict(self) -> Dict[str, Any]:
        """Plain form for JSON."""
        rows = [{key: value for key, value in row.items() if key not in ('scale', 'calibrated')}
                for row in self.sites]
        return dict(march=self.march, counts=self.counts, sites=rows,
                    findings=[finding.as_dict() for finding in self.findings],
                    instructions=self.instructions, **self._costs())

    def _costs(self) -> Dict[str, Any]:
        if self.estimate is None:
            return {}
        report = self.estimate.as_vendor_dict()
        summary = {name: value for name, value in report['summary'].items()
                   if name != 'layer details'}
        return dict(estimate=dict(summary, note=report['note']),
                    dearest=[layer.as_dict() for layer in self.dearest])


@torch.no_grad()
def set_random_weights(model: nn.Module, seed: int = SEED) -> None:
    """Random weights that keep activations finite and no tensor all zeros.

    A detector that is built but not initialised may hold memory as it was found.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            spread = (2 / parameter[0].numel())**0.5  # He et al. 2015: fan in, ReLU
            values = torch.randn(parameter.shape, generator=generator) * spread
        elif name.endswith('weight'):  # of a norm
            values = torch.ones(parameter.shape)
        else:
            values = torch.randn(parameter.shape, generator=generator) * BIAS_SPREAD
        parameter.copy_(values)


@torch.no_grad()
def observe_random_image(model: nn.Module, seed: int = SEED) -> None:
    """Calibrate a prepared detector on one image of normally distributed values."""
    graph = quantization_of(model).networks[0].graph
    shape = graph.values[graph.inputs[0]].shape
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    set_quant_state(model, 'observe')
    model(image.to(device_of(model)), example_samples(1, shape[-2:]), mode='tensor')
    finish_calibration(model)
    set_quant_state(model, 'quantize')


def list_sites(model: nn.Module, settings: dict) -> List[dict]:
    """Rows of a float detector's tensors under the template alone, without any user rule.

    Its attention is opened and its batch norms are folded, in place.
    """
    network, _, _ = quantized_graph(model, dict(settings, qconfig=[]))
    return network.with_scales(lambda name: (1.0, False)).rows


def check_prepared(model: nn.Module, march: str, metadata_of: Optional[MetadataOf] = None,
                   step: Step = silent) -> ModelCheck:
    """Export and convert a prepared, calibrated detector, compare it with a march's limits, estimate it.

    Raises:
        BpuError: An op has no integer form; the message names its site. Findings of level error do
            not raise.
    """
    step('export')
    networks = quantized_graphs(model)
    lowered = lower_networks(networks)
    step('convert to integers')
    conversion = lowered.convert(metadata_of and metadata_of(model))
    step('compare with the limits')
    program = program_from_module(conversion.result)
    findings = check_program(program, march)
    step('estimate')
    _, estimate = compile_network(program, march)
    rows = [row for network in networks for row in network.rows]
    return ModelCheck(march, rows, findings, conversion.notes, len(program.instructions), estimate)


def check_float(model: nn.Module, settings: dict, march: str,
                metadata_of: Optional[MetadataOf] = None, step: Step = silent) -> ModelCheck:
    """Check a float detector with the weights it has; it is prepared in place.

    Args:
        model (nn.Module): Float detector.
        settings (dict): Validated ``bpu`` settings; min-max observers take the place of others.
        march (str): March name.
        metadata_of (Callable, optional): Prepared detector -> metadata of the integer module.
        step (Step): Told of each step.

    Raises:
        BpuError: The model cannot be captured or lowered, or a rule matches nothing.
    """
    step('prepare')
    prepare(model, dict(settings, calibration=dict(observer='minmax')))
    step('observe a random image')
    observe_random_image(model)
    return check_prepared(model, march, metadata_of, step)
