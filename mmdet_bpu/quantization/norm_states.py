"""Which batch norms are live in a QAT run, and their folding part by part."""
from collections import Counter
from contextlib import contextmanager
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Set

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.quantization.fold import set_submodule
from mmdet_bpu.quantization.live_norms import LiveNorm, fold, norms_inside, unfold

FIELD = 'bpu.qat.batch_norm'
FOLDED, LIVE = 'folded', 'live'
"""Values of the field; a dict says when which part is folded."""


def norms_live(bpu: Mapping[str, Any]) -> bool:
    """Whether ``bpu`` settings train with live norms."""
    return bpu.get('stage') == 'qat' and (bpu.get('qat') or {}).get('batch_norm', FOLDED) != FOLDED


@contextmanager
def as_trained(model: nn.Module) -> Iterator[None]:
    """A detector in training mode, as it says itself which of its norms that leaves out."""
    before = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def trained_norms(model: nn.Module) -> Set[str]:
    """Paths of the norms whose statistics training updates: neither frozen nor ``norm_eval``."""
    with as_trained(model):
        return {path for path, module in model.named_modules()
                if isinstance(module, _BatchNorm) and module.training}


def install(detector: nn.Module, norms: Mapping[str, LiveNorm], trained: Set[str]) -> None:
    """Put norms back into their places in a folded detector, not live yet, in place.

    Args:
        detector (nn.Module): Prepared, with the weights that the norms were folded into.
        norms (Mapping[str, LiveNorm]): Path of a convolution -> its norm.
        trained (set[str]): See :func:`trained_norms`.

    Raises:
        BpuError: No norm can be live, or the settings' globs match none.
    """
    quant = detector.quant
    for conv_path, norm_path in quant.folded:
        if conv_path in norms and norm_path in trained:
            conv = detector.get_submodule(conv_path)
            set_submodule(detector, norm_path, norms[conv_path].to(conv.weight))
            quant.holds_norms = True
    paths = [path for path, _, _ in norms_inside(detector)]
    if not paths:
        raise BpuError(f"field {FIELD}: expected '{FOLDED}' for {type(detector).__name__}: no batch "
                       'norm behind a convolution has statistics that training updates. They are '
                       'frozen (norm_eval=True, frozen_stages), shared, or there are none')
    setting = quant.settings['qat']['batch_norm']
    for glob in setting['parts'] if isinstance(setting, Mapping) else ():
        if not matching(paths, [glob]):
            raise BpuError(f'field {FIELD}.parts: {glob!r} matches no convolution with a live batch '
                           f'norm; expected a glob of some of {first_names(paths)}')


def matching(paths: Iterable[str], globs: Iterable[str]) -> List[str]:
    """Those of ``paths`` that one of ``globs`` matches."""
    globs = list(globs)
    return [path for path in paths if any(fnmatchcase(path, glob) for glob in globs)]


def live_paths(detector: nn.Module) -> List[str]:
    """Paths of the convolutions whose norms are live."""
    return [path for path, _, norm in norms_inside(detector) if norm.is_live]


def frozen_norms(detector: nn.Module) -> List[str]:
    """Paths of the norms that keep their statistics: folded from the start, or standing alone."""
    inside = {id(norm) for _, _, norm in norms_inside(detector)}
    folded = [norm for _, norm in detector.quant.folded
              if id(detector.get_submodule(norm)) not in inside]
    alone = [path for path, module in detector.named_modules()
             if isinstance(module, _BatchNorm) and id(module) not in inside]
    return [*folded, *alone]


def norm_state(detector: nn.Module) -> Dict[str, Tensor]:
    """What :func:`install` has added to a detector's state dict."""
    inside = {id(norm) for _, _, norm in norms_inside(detector)}
    return {f'{path}.{name}': tensor for path, module in detector.named_modules()
            if id(module) in inside for name, tensor in module.state_dict().items()}


def unfold_all(detector: nn.Module) -> None:
    """Let all norms that :func:`install` has put into their places be live, in place."""
    for _, conv, norm in norms_inside(detector):
        unfold(conv, norm)


def fold_parts(detector: nn.Module, globs: Iterable[str]) -> Dict[str, List[nn.Parameter]]:
    """Fold live norms whose convolutions' paths match; what evaluation computes stays, bit for bit.

    Args:
        detector (nn.Module): Prepared; changed in place.
        globs (Iterable[str]): Of paths of convolutions.

    Returns:
        dict[str, list[Parameter]]: Path of a folded convolution -> parameters that now mean
            something else.
    """
    chosen, changed = set(matching(live_paths(detector), globs)), {}
    for path, conv, norm in list(norms_inside(detector)):
        if path in chosen:
            fold(conv, norm)
            changed[path] = [conv.weight, conv.bias, norm.weight, norm.bias]
    return changed


def folded_twin(detector: nn.Module) -> nn.Module:
    """A copy without live norms, or ``detector`` itself where there are none."""
    if not detector.quant.holds_norms:
        return detector
    twin = deepcopy(detector)
    fold_parts(twin, ['*'])
    for _, norm_path in twin.quant.folded:
        set_submodule(twin, norm_path, nn.Identity())
    twin.quant.holds_norms = False
    return twin


def counted_by_part(paths: Iterable[str]) -> str:
    """``backbone 12, neck 4``."""
    counts = Counter(path.partition('.')[0] for path in paths)
    return ', '.join(f'{part} {count}' for part, count in counts.items())
