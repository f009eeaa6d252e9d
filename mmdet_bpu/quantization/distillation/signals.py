"""What a forward shows of a detector: outputs, selected positions, features."""
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import tensors_of
from mmdet_bpu.quantization.distillation.selections import Selection, Selections
from mmdet_bpu.quantization.live_norms import LiveNorm


@dataclass
class Signals:
    """What one forward showed.

    Attributes:
        outputs (list[Tensor]): Deployed outputs, in order.
        selections (list[Selection]): Of a two-stage detector.
        features (dict[str, list[Tensor]]): Module path -> tensors that its calls returned, in order.
    """
    outputs: List[Tensor] = field(default_factory=list)
    selections: List[Selection] = field(default_factory=list)
    features: Dict[str, List[Tensor]] = field(default_factory=dict)

    def tensors(self) -> List[Tensor]:
        """All that losses are computed from."""
        found = [*self.outputs]
        for selection in self.selections:
            found += [selection.scores, *selection.gathered]
        return found + [tensor for each in self.features.values() for tensor in each]


@contextmanager
def watched(model: nn.Module, modules: Sequence[str]) -> Iterator[Dict[str, List[Tensor]]]:
    """Collect what modules return while it runs.

    Args:
        model (nn.Module): A detector.
        modules (Sequence[str]): Their paths.
    """
    features: Dict[str, List[Tensor]] = {path: [] for path in modules}
    with ExitStack() as hooks:
        for path, found in features.items():
            hooks.enter_context(_collecting(model.get_submodule(path), found))
        yield features


@contextmanager
def _collecting(module: nn.Module, found: List[Tensor]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, given, output: found.extend(_tensors(output)))
    try:
        yield
    finally:
        handle.remove()


def _tensors(output: Any) -> List[Tensor]:
    """Floating tensors of nested outputs; what else there is (shapes, flags) shows nothing."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in _tensors(part)]
    return []


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout and queries that exist in training alone; modes are restored.

    Batch norms that are live, which they are in a student that trains, train.
    """
    training = [module for module in model.modules()
                if module.training and not (isinstance(module, LiveNorm) and module.is_live)]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def deployed_signals(model: nn.Module, image: Tensor, modules: Sequence[str] = ()) -> Signals:
    """Run what of a detector is deployed on normalised images ``(N, C, H, W)``.

    Args:
        model (nn.Module): A float or prepared detector; quantizers run if their owner says so.
        image (Tensor): The images.
        modules (Sequence[str]): Paths of modules whose results are features. Defaults to none.
    """
    family = FAMILIES.of(model)
    with in_evaluation(model), watched(model, modules) as features:
        outputs = tensors_of(family.deployed(family.run(model, image)))
    return Signals(outputs, [], features)


@torch.no_grad()
def float_signals(model: nn.Module, image: Tensor, modules: Sequence[str],
                  selects: bool) -> Signals:
    """What a float teacher shows of images.

    Args:
        model (nn.Module): A float detector.
        image (Tensor): (N, C, H, W), normalised.
        modules (Sequence[str]): See :func:`deployed_signals`.
        selects (bool): Whether it is a two-stage detector.
    """
    if not selects:
        return deployed_signals(model, image, modules)
    with Selections() as selections:
        signals = deployed_signals(model, image, modules)
    signals.selections = selections.found
    return signals
