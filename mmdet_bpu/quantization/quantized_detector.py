"""All that quantization adds to a detector: its state, and the class that runs under it."""
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import xxhash
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.graph.sites import SiteTracker, active_tracker, tracking
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState
from mmdet_bpu.quantization.fused.inner_sites import InnerSites
from mmdet_bpu.quantization.live_norms import LiveNorm, idle_parameters, norms_inside
from mmdet_bpu.quantization.plan import SitePlan
from mmdet_bpu.quantization.quant_mode import Decisions, QuantMode
from mmdet_bpu.quantization.recomputation import recomputing_alike
from mmdet_bpu.quantization.trained_scales import steps_of
from mmdet_bpu.quantization.weight_reach import WeightReach


class Quantization(nn.Module):
    """Everything that quantization adds to a detector, as one sub-module named ``quant``.

    Args:
        plan (dict): Runtime key -> :class:`SitePlan`.
        opened (dict): Runtime keys of calls that are written out in simpler functions -> the sites
            inside.
        quantizers (dict[str, FakeQuantizer]): By public name.
        networks (list[QuantizedGraph]): What the detector is deployed as; without scales, which
            live in the quantizers.
        folded (list[tuple[str, str]]): Paths of (convolution, batch norm) pairs that were folded.
        settings (dict): The ``bpu`` settings the detector was prepared with.
        reach (WeightReach, optional): Of the weights. Defaults to one that stays.

    Attributes:
        statistics (dict | None): What the last calibration saw: public name -> plain data, see
            :meth:`~mmdet_bpu.quantization.statistics.Statistics.as_plain`.
        untrained (list[str] | None): Quantized sites that prediction alone runs, once a training step has
            been made.
        products (Callable | None): Sees each product with weights: runtime key, function, arguments.
        supervision (Supervision | None): A float teacher that training has beside the labels or in their
            place; copies share it.
        learns (bool): Whether scales are learned, of activations or of weights.
        norms (dict[str, LiveNorm]): Path of a convolution -> the norm that was folded into it, where that
            is known and it can be live.
        holds_norms (bool): Whether some of them are in their places in the detector.
    """
    supervision: Optional[Any] = None
    statistics: Optional[Dict[str, dict]] = None
    untrained: Optional[List[str]] = None
    products: Optional[Callable] = None

    def __init__(self, plan: Dict[tuple, SitePlan], opened: Dict[tuple, InnerSites],
                 quantizers: Dict[str, FakeQuantizer], networks: List[QuantizedGraph],
                 folded: List[Tuple[str, str]], settings: dict,
                 reach: Optional[WeightReach] = None) -> None:
        super().__init__()
        self.plan, self.opened, self.networks = plan, opened, networks
        self.folded, self.settings = folded, settings
        self.state, self._known = QuantState.OFF, False
        self.quantizers = nn.ModuleDict({module_key(k): q for k, q in quantizers.items()})
        self.reach = WeightReach(networks) if reach is None else reach
        self.learns = next(steps_of(self), None) is not None
        self.norms: Dict[str, LiveNorm] = {}
        self.holds_norms = False
        self._decisions: Optional[Decisions] = None

    def quantizer(self, name: str) -> FakeQuantizer:
        """Quantizer by its public name."""
        return self.quantizers[module_key(name)]

    def remember_weights(self, detector: nn.Module) -> None:
        """Note the weights that the networks were captured with."""
        self._weights = checksum(detector)

    def weights_changed(self, detector: nn.Module) -> bool:
        """Whether ``detector`` has other weights than :meth:`remember_weights` saw."""
        return self._weights != checksum(detector)

    def require_scales(self) -> None:
        """Refuse to quantize by scales that nobody set.

        Raises:
            BpuError: Fake quantizers have no scale; the message names their sites.
        """
        # int32 sums are never rounded: they have the scale of their product.
        rounding = {public_name(key): quantizer for key, quantizer in self.quantizers.items()
                    if quantizer.dtype != 'int32'}
        flags = [quantizer.calibrated for quantizer in rounding.values()]
        self._known = not flags or bool(torch.cat(flags).all())
        if self._known:
            return
        sites = [name for name, flag in zip(rounding, flags) if not bool(flag)]
        raise BpuError(f'{len(sites)} tensors have no scale, because no calibration observed them: '
                       f'{first_names(sites)}; start from a checkpoint that a calibration has finished, '
                       'or from a float one, which is calibrated first')

    def set_state(self, state: Union[str, QuantState]) -> None:
        """``off``, ``observe``, ``quantize`` or ``both``, for all quantizers."""
        self.state, self._known = QuantState.of(state), False
        for quantizer in self.quantizers.values():
            quantizer.state = self.state

    @contextmanager
    def running(self, detector: nn.Module) -> Iterator[None]:
        """Apply the plan to what ``detector`` runs inside."""
        idle = self.state is QuantState.OFF and self.products is None
        if idle or active_tracker() is not None:
            yield
            return
        if self.state is QuantState.QUANTIZE and not (detector.training and self._known):
            self.require_scales()
        mode = QuantMode(self.decisions_of(detector), self.state.quantizes)
        mode.products, mode.observes = self.products, self.state.observes or self.products is None
        mode.closed = detector.training and self.state is QuantState.QUANTIZE and self._closes
        first_step = detector.training and self.state.quantizes and self.untrained is None
        mode.seen = set() if first_step else None
        with tracking(mode.tracker), mode, recomputing_alike(mode.tracker, mode):
            yield
        if self.state.observes:
            for quantizer in self.quantizers.values():
                quantizer.observer.end_batch()
        if first_step:
            self.untrained = [site.output for key, site in self.plan.items()
                              if site.output is not None and key not in mode.seen]

    @property
    def _closes(self) -> bool:
        return bool((self.settings.get('qat') or {}).get('closed'))

    def decisions_of(self, detector: nn.Module) -> Decisions:
        """What is done at each call of ``detector``, which this quantization is of."""
        known = self._decisions
        if known is None or known.plan is not self.plan \
                or not known.tracker.belongs_to(detector):
            by_name = {public_name(k): q for k, q in self.quantizers.items()}
            self._decisions = Decisions(SiteTracker(detector), self.plan, self.opened, by_name,
                                        self.reach)
            self._decisions.norms = {path: norm for path, _, norm in norms_inside(detector)}
        return self._decisions

    def __deepcopy__(self, memo: dict) -> 'Quantization':
        decisions, self._decisions = self._decisions, None
        try:
            twin = self.__class__.__new__(self.__class__)
            memo[id(self)] = twin
            shared = {'plan', 'opened', 'networks', 'folded', 'settings', 'statistics',
                      'supervision', 'norms'}
            for name, value in self.__dict__.items():
                twin.__dict__[name] = value if name in shared else deepcopy(value, memo)
            return twin
        finally:
            self._decisions = decisions


class QuantizedDetector:
    """Mixin of a prepared detector's class: its forward runs under its quantization."""

    def forward(self, *args, **kwargs):
        """mmdet's forward in any mode."""
        quant = self.quant
        if kwargs.get('mode') == 'loss' and quant.supervision is not None:
            losses = quant.supervision.losses(self, super().forward, *args, **kwargs)
        else:
            with quant.running(self):
                losses = super().forward(*args, **kwargs)
        if kwargs.get('mode') == 'loss' and (quant.learns or quant.holds_norms):
            return reached_by(losses, [*steps_of(quant), *idle_parameters(self)])
        return losses


def reached_by(losses: Dict[str, Any], parameters: Sequence[nn.Parameter]) -> Dict[str, Any]:
    """The same losses, of which all ``parameters`` are a part, if with a gradient of 0.

    Some scales are frozen, or of sites that prediction alone runs, some parameters have others in their
    place for a while, and DDP waits for all gradients.
    """
    if parameters:
        nothing = 0.0 * torch.cat(list(parameters)).sum()
        name = next(iter(losses))
        first = losses[name]
        losses[name] = first + nothing if isinstance(first, Tensor) else \
            [each + nothing for each in first]
    return losses


def checksum(detector: nn.Module) -> int:
    """Of all weights and buffers that are not ours."""
    state = xxhash.xxh3_64()
    for name, tensor in (*detector.named_parameters(), *detector.named_buffers()):
        if not name.startswith('quant.'):
            state.update(name.encode())
            state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return state.intdigest()


def module_key(name: str) -> str:
    """A public site name as a sub-module name, which must hold no dot."""
    return name.replace('.', '|')


def public_name(key: str) -> str:
    """Inverse of :func:`module_key`."""
    return key.replace('|', '.')
