"""A training step under a float teacher, with the labels' losses or without labels."""
from contextlib import nullcontext
from fnmatch import fnmatchcase
from typing import Any, Callable, Dict, List, Optional, Sequence

from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.output_tree import tensors_of
from mmdet_bpu.graph.sites import active_tracker
from mmdet_bpu.quantization.distillation.losses import OutputLosses, of_features
from mmdet_bpu.quantization.distillation.selections import Selections
from mmdet_bpu.quantization.distillation.signals import (Signals, deployed_signals, float_signals,
                                                         watched)

NAME = 'loss_distill_{}'
OURS = 'quant'


class Supervision:
    """What a prepared detector's ``forward`` in mode ``'loss'`` does beside, or in place of, the labels' losses.

    It is no module and holds its teacher as none: neither optimizer, DDP, EMA nor checkpoint sees the
    teacher's weights.

    Args:
        student (nn.Module): The prepared detector.
        teacher (nn.Module): A float detector of the same config, with its weights by the first step.
        labels (bool): Whether ground truth is used too.
        outputs (float): Weight of what the deployed outputs lose.
        features (float): Weight of what features lose.
        modules (Sequence[str]): Paths of the modules whose results are features.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, labels: bool, outputs: float,
                 features: float, modules: Sequence[str]) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.labels, self.outputs, self.features = labels, outputs, features
        self.modules = list(modules) if features else []
        self.selects = any(op.kind == 'topk' for op in student.quant.networks[0].graph.ops)
        self._of_outputs = OutputLosses(student)

    def losses(self, detector: nn.Module, stock: Callable[..., Dict[str, Any]], inputs: Tensor,
               data_samples: Optional[list] = None, mode: str = 'loss') -> Dict[str, Any]:
        """Losses of a batch of preprocessed images ``(N, C, H, W)``.

        Args:
            detector (nn.Module): The prepared detector.
            stock (Callable): Its class's own ``forward``.
            inputs (Tensor): The images.
            data_samples (list, optional): With ground truth if there are labels.
            mode (str): ``'loss'``.
        """
        taught = float_signals(self.teacher, inputs, self.modules, self.selects)
        losses: Dict[str, Any] = {}
        # Around the mode that quantizes: it sees integers' values.
        watching = Selections(_on_path if self.labels else lambda: True)
        with watching if self.selects else nullcontext() as selections:
            with detector.quant.running(detector):
                if self.labels:
                    losses, shown = self._with_labels(detector, stock, inputs, data_samples)
                else:
                    shown = deployed_signals(detector, inputs, self.modules)
        shown.selections = selections.found if self.selects else []
        losses.update(self._compared(shown, taught))
        return losses

    def _with_labels(self, detector: nn.Module, stock: Callable, inputs: Tensor,
                     data_samples: Optional[list]) -> tuple:
        raw: List[Any] = []
        handle = detector.bbox_head.register_forward_hook(
            lambda _, given, outputs: raw.append(outputs))
        try:
            with watched(detector, self.modules) as features:
                losses = dict(stock(inputs, data_samples, mode='loss'))
        finally:
            handle.remove()
        if not raw:
            raise BpuError(f'field bpu.qat.distill: {type(detector.bbox_head).__name__} computes its loss '
                           'without a call of its own, so its outputs are not seen; set '
                           'bpu.qat.labels=False, which trains what is deployed')
        outputs = tensors_of(FAMILIES.of(detector).deployed(raw[-1])) if self.outputs else []
        return losses, Signals(outputs, [], features)

    def _compared(self, shown: Signals, taught: Signals) -> Dict[str, Tensor]:
        losses = {}
        if self.outputs:
            for name, loss in self._of_outputs(shown, taught).items():
                losses[NAME.format(name)] = self.outputs * loss
        if self.features:
            losses[NAME.format('features')] = self.features * of_features(shown.features,
                                                                          taught.features)
        return losses


def _on_path() -> bool:
    tracker = active_tracker()
    return tracker is not None and bool(tracker.stack)


def matching_modules(model: nn.Module, globs: Sequence[str]) -> List[str]:
    """Paths of modules that globs match, in the order of the detector.

    Raises:
        BpuError: A glob matches none.
    """
    paths = [path for path, _ in model.named_modules()
             if path and path.partition('.')[0] != OURS]
    for glob in globs:
        if not any(fnmatchcase(path, glob) for path in paths):
            raise BpuError(f'field bpu.qat.distill.modules: no module of {type(model).__name__} is '
                           f'called {glob!r}; expected globs of paths such as {", ".join(paths[:3])}')
    return [path for path in paths if any(fnmatchcase(path, glob) for glob in globs)]
