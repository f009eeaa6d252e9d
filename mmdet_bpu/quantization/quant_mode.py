"""Run a detector with its fake quantizers: the runtime twin of capture."""
import functools
from typing import Any, Callable, Dict, Optional, Sequence, Set, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmdet_bpu.graph.decompositions import DECOMPOSITIONS
from mmdet_bpu.graph.functional_forms import REBINDING, functional_form, map_tensors
from mmdet_bpu.graph.opening import inner_names
from mmdet_bpu.graph.sites import Link, SiteTracker, calling_frame, function_name
from mmdet_bpu.quantization.denoising import deployed_part
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState, fake_quantize_constant
from mmdet_bpu.quantization.fold import BIAS, WEIGHT
from mmdet_bpu.quantization.fused.composites import COUNTED, FUSED
from mmdet_bpu.quantization.fused.inner_sites import InnerSites
from mmdet_bpu.quantization.live_norms import LiveNorm
from mmdet_bpu.quantization.owned_results import RELU, is_unsaved, makes_new
from mmdet_bpu.quantization.plan import SitePlan
from mmdet_bpu.quantization.weight_reach import WeightReach


class Decisions:
    """What is done at each call, looked up by its key once and by its link from then on.

    Args:
        tracker (SiteTracker): Of the detector; its links are looked up.
        plan (dict): Runtime key -> :class:`SitePlan`.
        opened (dict): Runtime keys of calls that are written out in simpler functions -> the sites
            inside.
        quantizers (dict[str, FakeQuantizer]): By public name.
        reach (WeightReach): Of the weights.

    Attributes:
        norms (dict[str, LiveNorm]): Path of a convolution -> the norm inside it, live or not.
    """
    PASSES, OPENED = object(), object()

    def __init__(self, tracker: SiteTracker, plan: Dict[tuple, SitePlan],
                 opened: Dict[tuple, InnerSites], quantizers: Dict[str, FakeQuantizer],
                 reach: WeightReach) -> None:
        self.tracker, self.plan, self.opened = tracker, plan, opened
        self.quantizers, self.reach = quantizers, reach
        self.norms: Dict[str, LiveNorm] = {}
        self.of_link: Dict[Link, Any] = {}
        self.shared: Set[int] = set()  # ids of weights that several calls of a forward read

    def decide(self, link: Link) -> Any:
        """:class:`SitePlan` of a call that has one, ``OPENED`` or ``PASSES``."""
        decision = self.plan.get(link.key) or self.PASSES
        if link.key in self.opened:
            decision = self.OPENED
        self.of_link[link] = decision
        return decision


class QuantMode(TorchFunctionMode):
    """Applies a plan to the calls of one forward."""

    def __init__(self, decisions: Decisions, quantize_weights: bool) -> None:
        super().__init__()
        self.tracker, self.quantizers = decisions.tracker, decisions.quantizers
        self.decisions, self.quantize_weights = decisions, quantize_weights
        self.observes = True
        self.closed = False  # whether only the result of an opened call is quantized
        self._weights: Dict[tuple, Optional[tuple]] = {}
        self._factors: Dict[LiveNorm, Tensor] = {}  # of live norms, as this forward found them
        self.seen: Optional[Set[tuple]] = None  # keys of sites that ran, if asked for
        self.products: Optional[Callable] = None  # sees products with weights before they are made

    def repeated(self) -> 'QuantMode':
        """The same quantization of calls that run again: what they see was observed before."""
        twin = QuantMode(self.decisions, self.quantize_weights)
        twin.observes, twin.closed, twin._factors = False, self.closed, self._factors
        return twin

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.tracker.stack:
            return func(*args, **kwargs)
        link = self.tracker.call(func, calling_frame())
        site = self.decisions.of_link.get(link) or self.decisions.decide(link)
        if func is F.batch_norm:
            args, kwargs = _with_frozen_statistics(*args, **kwargs)
        if site is Decisions.PASSES:
            return func(*args, **kwargs)
        if site is Decisions.OPENED:
            return self._open(func, args, kwargs, link)
        if self.seen is not None:
            self.seen.add(link.key)
        given = args[0] if args else None
        if site.weight and self.products is not None:
            self.products(link.key, func, args)
        norm = self.decisions.norms.get(link.path) if site.weight else None
        if norm is not None and norm.is_live:
            return norm.mark(self._with_norm(norm, site, func, args, kwargs))
        if site.operands or site.constants or site.weight:
            args, kwargs = self._quantize_operands(site, args, kwargs)
        if site.output is None and site.filled is None and (not args or args[0] is given):
            return func(*args, **kwargs)
        plain, plain_kwargs, in_place = functional_form(func, kwargs)
        if plain in RELU and args and self._rectifies(site):
            overwrites = bool(kwargs.get('inplace')) and is_unsaved(args[0])
            result = self.quantizers[site.output].rectified(args[0], overwrites)
        else:
            result = self._rounded(site, plain(*args, **plain_kwargs), makes_new(plain))
        if in_place and func not in REBINDING and 'inplace' not in kwargs:
            return given.copy_(result)
        return result

    def _rectifies(self, site: SitePlan) -> bool:
        """Whether the quantizer behind a relu can do both in one pass, which sees nothing of the result."""
        if site.output is None or self.tracker.extra_queries or not self.quantize_weights:
            return False
        quantizer = self.quantizers[site.output]
        looks = quantizer._forward_hooks or self.observes and quantizer.follows
        return quantizer.state is QuantState.QUANTIZE and not looks

    def _rounded(self, site: SitePlan, result: Any, owned: bool) -> Any:
        if site.output is not None:
            return self._deployed(self._quantizer(site.output), result, site.output_shape, owned)
        if site.filled is not None and self.quantize_weights:
            name, factor = site.filled
            on_grid = functools.partial(self.quantizers[name].on_grid, factor=factor)
            return self._deployed(on_grid, result, site.output_shape)
        return result

    def _quantizer(self, name: str) -> Callable[..., Tensor]:
        quantizer = self.quantizers[name]
        if quantizer._forward_hooks and self.observes:
            return lambda x, owned: quantizer(x)  # who looks on sees what came
        if self.observes:
            return quantizer.forward
        return quantizer.on_grid if self.quantize_weights else _unchanged

    def _deployed(self, quantize: Callable[..., Tensor], x: Tensor, captured: Tuple[int, ...],
                  owned: bool = False) -> Tensor:
        """``x`` with all of it quantized that is deployed."""
        tracker = self.tracker
        part = tracker.extra_queries and deployed_part(
            tuple(x.shape), captured, tracker.extra_queries, tracker.batch)
        if not part:
            return quantize(x, owned)
        quantized = quantize(x[part], False)
        x = x.to(quantized.dtype, copy=True)
        x[part] = quantized
        return x

    def _weight(self, weight: Tensor, dtype: str, groups: Optional[int], name: str) -> Tensor:
        """A weight on its grid; once a forward, however many calls read it."""
        form = dtype, groups, name
        slot = (id(weight), *form, torch.is_grad_enabled())
        if slot not in self._weights:
            self._weights[slot] = None
        else:
            self.decisions.shared.add(id(weight))
        if id(weight) not in self.decisions.shared:
            return self.decisions.reach.rounded(weight, *form)
        known = self._weights[slot]
        if known is None or known[0] is not weight or known[1] != weight._version:
            known = weight, weight._version, self.decisions.reach.rounded(weight, *form)
            self._weights[slot] = known
        return known[2]

    def _with_norm(self, norm: LiveNorm, site: SitePlan, func: Callable, args: tuple,
                   kwargs: dict) -> Tensor:
        """A convolution and the live norm inside it; quantizers see what they see of a folded one."""
        name, groups = function_name(func), site.weight[2]
        at, weight = WEIGHT[name], args[WEIGHT[name]]
        if not norm.training:
            factor = norm.factor()
        else:
            if norm not in self._factors:  # once: when calls run again, statistics have moved on
                with torch.no_grad():
                    self._factors[norm] = norm.factor()
            factor = self._factors[norm]
        given = list(args)
        given[at] = norm.folded_weight(weight, factor, groups)
        given[BIAS[name]] = None if norm.training else norm.folded_bias(factor)
        given, kwargs = self._quantize_operands(site, given, kwargs, self.decisions.reach.rounded)
        if norm.training:
            given[at] = norm.unfolded(given[at], weight, factor, groups)
            result = norm.normalised(func(*given, **kwargs), counts=self.observes)
        else:
            result = func(*given, **kwargs)
        return self._rounded(site, result, makes_new(func))

    def _open(self, func, args: tuple, kwargs: dict, link: Link) -> Any:
        """A call that is written out in simpler functions, as it was captured."""
        plain, plain_kwargs, in_place = functional_form(func, kwargs)
        opened = self._at_once(plain, args, plain_kwargs, link)
        if opened is NotImplemented:
            decomposition = DECOMPOSITIONS[plain]
            with self.tracker.nested(link, inner_names(plain, decomposition)), self:
                opened = decomposition(*args, **plain_kwargs)
        return args[0].copy_(opened) if in_place else opened

    def _at_once(self, func: Callable, args: tuple, kwargs: dict, link: Link) -> Any:
        """The same with its quantizers in one function, or closed; where there is one for it."""
        at_once = FUSED if self.quantize_weights else COUNTED if self.observes else {}
        if func not in at_once or self.tracker.extra_queries:
            return NotImplemented
        sites = self.decisions.opened[link.key]
        if self.closed and sites.last is not None:
            result = self._deployed(self._quantizer(sites.last), func(*args, **kwargs), ())
        else:
            result = at_once[func](sites, self.quantizers, *args, **kwargs)
        if self.seen is not None and result is not NotImplemented:
            self.seen.update(sites.keys)
        return result

    def _quantize_operands(self, site: SitePlan, args: Sequence, kwargs: dict,
                           on_grid: Optional[Callable[..., Tensor]] = None) -> tuple:
        position = iter(range(1 << 30))

        def quantize(tensor: Tensor) -> Any:
            index = next(position)
            if index in site.operands:
                return self._deployed(self._quantizer(site.operands[index]), tensor,
                                      site.operand_shapes[index])
            if not self.quantize_weights:
                return tensor
            if site.weight is not None and site.weight[0] == index:
                return (on_grid or self._weight)(tensor, *site.weight[1:])
            if index in site.constants:
                dtype = site.constants[index]
                return self._deployed(lambda x, owned: fake_quantize_constant(x, dtype), tensor,
                                      site.operand_shapes[index])
            return tensor

        return map_tensors((args, kwargs), quantize)


def _unchanged(x: Tensor, owned: bool) -> Tensor:
    return x


def _with_frozen_statistics(input: Tensor, running_mean: Optional[Tensor],
                            running_var: Optional[Tensor], weight: Optional[Tensor] = None,
                            bias: Optional[Tensor] = None, training: bool = False,
                            momentum: float = 0.1, eps: float = 1e-5) -> tuple:
    """Arguments of a batch norm that stays: frozen in training too, as those that were folded."""
    training = training and running_mean is None
    return (input, running_mean, running_var, weight, bias, training, momentum, eps), {}
