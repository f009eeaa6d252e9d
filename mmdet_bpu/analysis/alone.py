"""Run a prepared detector with some of its tensors quantized and everything else in float."""
from contextlib import contextmanager
from dataclasses import replace
from typing import Collection, Dict, Iterator, Mapping, Set, Tuple, Type

from torch import nn

from mmdet_bpu.graph.sites import SiteTracker, tracking
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState
from mmdet_bpu.quantization.fused.inner_sites import InnerSites
from mmdet_bpu.quantization.plan import SitePlan
from mmdet_bpu.quantization.quant_mode import Decisions, QuantMode
from mmdet_bpu.quantization.recomputation import recomputing_alike

Grid = Tuple[str, float]
"""dtype and scale."""


class Alone:
    """Runs a detector whose quantizers do nothing but those that are asked for.

    What is asked for is a part of the detector's own plan, so a tensor is rounded at the very
    places where it is rounded in the whole. Constant operands stay in float.

    Args:
        model (nn.Module): A prepared detector.
    """

    def __init__(self, model: nn.Module) -> None:
        self.quantization = quantization_of(model)
        self._tracker = SiteTracker(model)

    @contextmanager
    def quantizing(self, activations: Mapping[str, Grid],
                   weights: Collection[str] = ()) -> Iterator[None]:
        """Inside, calls of the detector round these tensors and no others.

        Args:
            activations (Mapping[str, tuple[str, float]]): Public name of a quantizer -> dtype and
                scale.
            weights (Collection[str]): Public names of weights, which are int8 by channel.
        """
        quantizers = {name: _quantizer(*grid) for name, grid in activations.items()}
        with self.running(quantizers, weights):
            yield

    @contextmanager
    def running(self, quantizers: Mapping[str, FakeQuantizer], weights: Collection[str] = (),
                mode_type: Type[QuantMode] = QuantMode) -> Iterator[QuantMode]:
        """The same with what stands at the places of the quantizers; the mode that runs it."""
        plan = self._plan(quantizers, weights)
        decisions = Decisions(self._tracker, plan, self._opened(plan), quantizers,
                              self.quantization.reach)
        mode = mode_type(decisions, quantize_weights=True)
        with tracking(self._tracker), mode, recomputing_alike(self._tracker, mode):
            yield mode

    def regions(self, activations: Collection[str], weights: Collection[str] = ()) -> Set[str]:
        """Names of the regions of the tensor path where these tensors are rounded."""
        return {region_of(key) for key in self._plan(activations, weights)}

    def _plan(self, activations: Collection[str],
              weights: Collection[str]) -> Dict[tuple, SitePlan]:
        """The part of the detector's plan that is about these tensors."""
        part = {}
        for key, site in self.quantization.plan.items():
            kept = replace(
                site,
                output=site.output if site.output in activations else None,
                operands={position: name for position, name in site.operands.items()
                          if name in activations},
                constants={},
                weight=site.weight if site.weight and site.weight[3] in weights else None,
                filled=site.filled if site.filled and site.filled[0] in activations else None)
            if kept.output or kept.operands or kept.weight or kept.filled:
                part[key] = kept
        return part

    def _opened(self, plan: Mapping[tuple, SitePlan]) -> Dict[tuple, InnerSites]:
        """The calls that have to be written out because something inside is rounded."""
        around = {outer for key in plan for outer in enclosing(key)}
        return {
            caller: InnerSites({label: plan[key] for label, key in zip(inner.plans, inner.keys)
                                if key in plan}, tuple(k for k in inner.keys if k in plan))
            for caller, inner in self.quantization.opened.items() if caller in around}


def _quantizer(dtype: str, scale: float) -> FakeQuantizer:
    quantizer = FakeQuantizer(dtype, scale=scale)
    quantizer.state = QuantState.QUANTIZE
    return quantizer


def enclosing(key: tuple) -> Iterator[tuple]:
    """Runtime keys of the calls around a call, the innermost first; the region is the last."""
    while len(key) > 1:
        key = key[0]
        yield key


def region_of(key: tuple) -> str:
    """Name of the region that a runtime key begins with."""
    *_, (name, ) = (key, *enclosing(key))
    return name
