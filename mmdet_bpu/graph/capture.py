"""Capture a detector's tensor path as a ``torch.fx.Graph`` by running it.

The model runs eagerly on real tensors under a ``TorchFunctionMode``. Calls whose inputs depend
on the image become nodes; everything else is a constant. What depends on the image has its shape
and no values (:mod:`mmdet_bpu.graph.unfilled_results`).
"""
import weakref
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.families.output_tree import Tree, tensors_of
from mmdet_bpu.graph.elementwise_chains import Constants
from mmdet_bpu.graph.functional_forms import (LIKE_ANOTHER, SHAPE_ONLY, TO_PYTHON,
                                              functional_form, map_tensors, set_item, take_item,
                                              tensors_in)
from mmdet_bpu.graph.held_tensors import held_tensors
from mmdet_bpu.graph.opening import ALWAYS_OPENED, Call, Decomposition, inner_names, opens
from mmdet_bpu.graph.regions import with_regions
from mmdet_bpu.graph.sites import (Link, SiteTracker, calling_frame, function_name, line_of,
                                   tracking)
from mmdet_bpu.graph.unfilled_results import UnfilledResults

Decompositions = Dict[Callable, Decomposition]


@dataclass
class CapturedGraph:
    """A detector's tensor path.

    Attributes:
        graph (fx.Graph): Nodes in call order. ``node.meta`` holds ``site`` (public name), ``key``
            (runtime key), ``function`` (its name), ``caller`` (key of the module call or opened
            function around), ``path`` (module), ``opened`` (written-out functions around), ``shape``
            and ``dtype``, and ``tensor_args``: names of the nodes of the call's tensor arguments.
        constants (dict[str, Tensor]): Values of the ``get_attr`` nodes.
        opened (set[tuple]): Keys of the calls that were written out in simpler functions.
        output_tree (Tree): Public names of the outputs in the head's nesting.
    """
    graph: fx.Graph
    constants: Dict[str, Tensor] = field(default_factory=dict)
    opened: set = field(default_factory=set)
    output_tree: Tree = None

    def add_constant(self, tensor: Tensor, path: str, learned: bool) -> fx.Node:
        """A node that holds ``tensor``, at the graph's insertion point."""
        name = f'const_{len(self.constants)}'
        # F.linear picks its kernel by requires_grad, even without autograd: keep the flag.
        self.constants[name] = tensor.detach().requires_grad_(tensor.requires_grad)
        node = self.graph.get_attr(name)
        node.meta.update(shape=tuple(tensor.shape), dtype=tensor.dtype, path=path, learned=learned)
        return node

    @torch.no_grad()
    def run(self, *inputs: Tensor) -> Tuple[Tensor, ...]:
        """Execute the graph on normalised images ``(N, C, H, W)`` of the captured shape."""
        holder = nn.Module()
        for name, value in self.constants.items():
            setattr(holder, name, value)
        return fx.Interpreter(holder, graph=self.graph).run(*inputs)

    def sites(self) -> List[str]:
        """Public names of all sites in call order."""
        return [n.meta['site'] for n in self.graph.nodes if 'site' in n.meta]


class CaptureMode(TorchFunctionMode):
    """Records torch function calls of one run; see :func:`capture`."""

    def __init__(self, tracker: SiteTracker, known: List[Tensor],
                 decompositions: Decompositions) -> None:
        super().__init__()
        self.tracker = tracker
        self.decompositions = decompositions
        self.captured = CapturedGraph(fx.Graph())
        self._constants = Constants(self.captured.constants, self._is_learned)
        # Tensor -> node. Weak: activations are freed as in any other run.
        self._nodes = WeakTensorKeyDictionary()
        self._const_nodes = WeakTensorKeyDictionary()
        self._known = WeakTensorKeyDictionary()  # does not depend on the image -> is learned
        for tensor in known:
            self._known[tensor] = isinstance(tensor, nn.Parameter)
        self._results = UnfilledResults()
        self._storages: Dict[int, List[weakref.ref]] = {}
        self._stale = WeakTensorKeyDictionary()  # overwritten through another name -> by whom
        self._names: Dict[Tuple[str, str], int] = {}
        self._last_site = 'the input image'

    def placeholder(self, name: str, value: Tensor) -> fx.Node:
        """Declare an input of the graph."""
        node = self.captured.graph.placeholder(name)
        node.meta.update(shape=tuple(value.shape), dtype=value.dtype, path='')
        self._track(value, node)
        return node

    def finish(self, outputs: Sequence[Tensor]) -> CapturedGraph:
        """Declare the outputs and return the graph."""
        for index, tensor in enumerate(outputs):
            self._check_origin(tensor, lambda: f'output {index} of the head')
            if tensor not in self._nodes:
                raise BpuError(f'output {index} of the head does not depend on the image')
            if tensor in self._stale:
                raise BpuError(f'output {index} of the head has been overwritten by '
                               f'{self._stale[tensor].meta["site"]} through another name; write '
                               'the op without in-place')
        self.captured.graph.output(tuple(self._nodes[t] for t in outputs))
        return self.captured

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.tracker.stack:
            return func(*args, **kwargs)
        frame = calling_frame()
        line = line_of(frame)
        link = self.tracker.call(func, frame)
        plain, plain_kwargs, in_place = functional_form(func, kwargs)
        if self._opens(plain, args, plain_kwargs):
            opened = self._open(plain, args, plain_kwargs, link, line)
            return self._overwrite(args[0], opened) if in_place else opened
        inputs = tensors_in((args, kwargs))
        for tensor in inputs:
            # Also where nothing else depends on the image: a hole must not pass for a constant.
            self._check_origin(tensor, lambda: self._place(line))
        if func in LIKE_ANOTHER:
            inputs = tensors_in(args[:1])
        tainted = any(t in self._nodes for t in inputs)
        if not tainted or func in SHAPE_ONLY:
            result = func(*args, **kwargs)
            self._remember(result, () if tainted else inputs)
            return result
        if func in TO_PYTHON:
            raise BpuError(f'{self._place(line)}: {function_name(func)} turns a tensor that depends '
                           'on the image into a Python value; a fixed graph cannot hold this')
        self._check_stale(func, args, inputs, line)
        return self._record(func, args, kwargs, link.key)

    def _open(self, func: Callable, args: tuple, kwargs: dict, link: Link, line) -> Any:
        """Run the decomposition of ``func``; its calls are sites inside this one."""
        decomposition = self.decompositions[func]
        with self.tracker.nested(link, inner_names(func, decomposition)), self:
            opened = decomposition(*args, **kwargs)
        if opened is NotImplemented:
            raise BpuError(f'{self._place(line)}: {function_name(func)} with these arguments has '
                           'no form in simpler functions')
        self.captured.opened.add(link.key)
        return opened

    def _overwrite(self, tensor: Tensor, value: Tensor) -> Tensor:
        """An opened call in place: ``tensor`` is what ``value`` is."""
        node = self._nodes[value]
        tensor.copy_(value)
        self._track(tensor, node)
        self._mark_overwritten(tensor, node)
        return tensor

    def _record(self, func: Callable, args: tuple, kwargs: dict, key: tuple) -> Any:
        """Run a call that depends on the image and add its node."""
        plain, plain_kwargs, in_place = functional_form(func, kwargs)
        arguments = map_tensors((args, plain_kwargs), self._node)
        tensor_args = tuple(self._node(t).name for t in tensors_in((args, kwargs)))
        result = self._results.call(func, args, kwargs, in_place)
        if not tensors_in(args[0] if plain is set_item else result):
            return result  # a shape, a device, a length: nothing that flows on
        node = self.captured.graph.call_function(plain, arguments[0], arguments[1])
        site = self._name(plain)
        node.meta.update(site=site, key=key, function=function_name(plain),
                         caller=self.tracker.caller, path=self.tracker.path,
                         opened=self.tracker.opened, tensor_args=tensor_args)
        self._last_site = site
        self._bind(node, args[0] if in_place else result)
        if in_place:
            self._mark_overwritten(args[0], node)
        return result

    def _bind(self, node: fx.Node, result: Any) -> None:
        """Attach the tensors of ``result`` to ``node``."""
        if isinstance(result, Tensor):
            node.meta.update(shape=tuple(result.shape), dtype=result.dtype)
            self._track(result, node)
            return
        node.meta.update(shape=None, dtype=None)
        for index, part in enumerate(result):
            if isinstance(part, Tensor):
                item = self.captured.graph.call_function(take_item, (node, index))
                item.meta.update(path=node.meta['path'], part_of=node.meta.get('site', ''))
                self._bind(item, part)

    def _track(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[tensor] = node
        self._stale.pop(tensor, None)
        if tensor.numel():
            pointer = tensor.untyped_storage().data_ptr()
            self._storages.setdefault(pointer, []).append(weakref.ref(tensor))

    def _mark_overwritten(self, tensor: Tensor, node: fx.Node) -> None:
        """Other names of the overwritten memory no longer hold what their nodes say."""
        for reference in self._storages.get(tensor.untyped_storage().data_ptr(), []):
            other = reference()
            if other is not None and other is not tensor:
                self._stale[other] = node

    def _check_stale(self, func: Callable, args: tuple, inputs: List[Tensor], line) -> None:
        for tensor in inputs:
            writer = self._stale.get(tensor)
            if writer is None:
                continue
            # ``x[i] += y`` writes through a view and then assigns the view to where it came from.
            if func is Tensor.__setitem__ and tensor is args[0] \
                    and self._nodes.get(args[2]) is writer:
                continue
            raise BpuError(f'{self._place(line)} reads a tensor that {writer.meta["site"]} has '
                           'overwritten through another name; write the op without in-place')

    def _opens(self, func: Callable, args: tuple, kwargs: dict) -> bool:
        """Whether this call is written out in simpler functions."""
        decomposition = self.decompositions.get(func)
        if decomposition is None or not self._depends_on_image((args, kwargs)):
            return False
        return opens(decomposition, Call(args, kwargs, self._nodes.get, self._constants))

    def _depends_on_image(self, value: Any) -> bool:
        return any(t in self._nodes for t in tensors_in(value))

    def _remember(self, result: Any, inputs: Sequence[Tensor]) -> None:
        """Note tensors that do not depend on the image, and whether training changes them."""
        learned = any(self._is_learned(t) for t in inputs)
        for tensor in tensors_in(result):
            self._known[tensor] = learned or self._is_learned(tensor)
            self._nodes.pop(tensor, None)

    def _is_learned(self, tensor: Tensor) -> bool:
        return isinstance(tensor, nn.Parameter) or bool(self._known.get(tensor, False))

    def _check_origin(self, tensor: Tensor, place: Callable[[], str]) -> None:
        """Refuse a tensor that neither a captured call nor the model has made."""
        if tensor in self._nodes or tensor in self._known or isinstance(tensor, nn.Parameter):
            return
        raise BpuError(
            f'{place()} reads a tensor of shape {tuple(tensor.shape)} that no captured call has '
            f'made (last captured: {self._last_site}); a custom autograd function or a compiled '
            'op on the tensor path must be replaced by torch functions')

    def _node(self, tensor: Tensor) -> fx.Node:
        node = self._nodes.get(tensor)
        node = self._const_nodes.get(tensor) if node is None else node
        if node is not None:
            return node
        node = self.captured.add_constant(tensor, self.tracker.path, self._is_learned(tensor))
        self._const_nodes[tensor] = node
        return node

    def _name(self, func: Callable) -> str:
        op = '.'.join([*self.tracker.opened, function_name(func)])
        slot = (self.tracker.path, op)
        index = self._names.get(slot, 0)
        self._names[slot] = index + 1
        return f'{slot[0]}/{op}.{index}'

    def _place(self, line: Tuple[str, int]) -> str:
        return f'{self.tracker.path or "the detector"} (line {line[1]} of {line[0]})'


@torch.no_grad()
def capture(model: nn.Module,
            image: Tensor,
            decompositions: Optional[Decompositions] = None) -> CapturedGraph:
    """Capture the tensor path of ``model`` in eval mode, as far as its family deploys it.

    Args:
        model (nn.Module): An mmdet detector. Its mode is restored, nothing else changes.
        image (Tensor): Normalised images ``(N, C, H, W)``; shapes in the graph are theirs.
        decompositions (dict, optional): torch function -> function that computes the same from
            simpler torch functions, or returns ``NotImplemented``. Defaults to ours alone.

    Raises:
        BpuError: A tensor of unknown origin, data-dependent control flow, or a read of
            overwritten memory; the message names the sites.
    """
    family = FAMILIES.of(model)
    training = {name: m.training for name, m in model.named_modules()}
    model.eval()
    tracker = SiteTracker(model)
    mode = CaptureMode(tracker, held_tensors(model),
                       {**ALWAYS_OPENED, **(decompositions or {})})
    image = image.to(device_of(model))
    try:
        with with_regions(model, family.regions(model)), tracking(tracker), mode:
            mode.placeholder('image', image)
            outputs = family.run(model, image)
            with tracker.region('deployed'):
                outputs = family.deployed(outputs)
        captured = mode.finish(tensors_of(outputs))
        captured.output_tree = family.output_tree(model, outputs)
        return captured
    finally:
        for name, module in model.named_modules():
            module.training = training[name]
