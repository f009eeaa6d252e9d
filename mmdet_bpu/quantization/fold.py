"""Batch norms folded into the convolutions before them."""
from typing import Dict, List, Tuple

import torch
from mmdet.models.layers import FrozenBatchNorm2d
from torch import Tensor, fx, nn

from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.graph.capture import CapturedGraph, capture
from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.program.weight_layout import channels_exchanged

SMALL_IMAGE = 256  # px; enough positions for the queries of the stock two-stage configs
CONVOLUTIONS = {'conv2d': nn.Conv2d, 'conv_transpose2d': nn.ConvTranspose2d}
"""Name of a torch function -> class of the modules whose weights it reads."""
NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def _calls(captured: CapturedGraph) -> dict:
    """Module path -> convolutions and norms that ran in it; padding of its own does not count."""
    calls: dict = {}
    for node in captured.graph.nodes:
        if node.op == 'call_function' and function_name(node.target) in (*CONVOLUTIONS,
                                                                         'batch_norm'):
            calls.setdefault(node.meta['path'], []).append(node)
    return calls


def _reads(node: fx.Node, captured: CapturedGraph, parameter: Tensor) -> bool:
    """Whether the second argument of a call is this parameter itself, not something made of it."""
    weight = node.args[1] if len(node.args) > 1 else node.kwargs['weight']
    return weight.op == 'get_attr' and \
        captured.constants[weight.target].data_ptr() == parameter.data_ptr()


def foldable_pairs(model: nn.Module, captured: CapturedGraph) -> List[Tuple[str, str]]:
    """(convolution path, batch norm path) where only the norm reads the convolution.

    Both modules must be called once: a shared one has no single scale to take in. The convolution
    must read its own weight: one that is computed at each call (weight standardisation) would undo
    what is folded into it.
    """
    calls = _calls(captured)
    pairs = []
    for node in captured.graph.nodes:
        if node.op != 'call_function' or function_name(node.target) != 'batch_norm':
            continue
        conv = node.args[0]
        if conv.op != 'call_function' or function_name(conv.target) not in CONVOLUTIONS \
                or len(conv.users) != 1:
            continue
        paths = conv.meta['path'], node.meta['path']
        conv_module, norm = (model.get_submodule(p) for p in paths)
        if isinstance(conv_module, CONVOLUTIONS[function_name(conv.target)]) \
                and _reads(conv, captured, conv_module.weight) and isinstance(norm, NORMS) \
                and norm.running_mean is not None and all(len(calls[p]) == 1 for p in paths):
            pairs.append(paths)
    return pairs


@torch.no_grad()
def fold_pair(conv: nn.Module, norm: nn.Module) -> None:
    """``norm(conv(x))`` as one convolution, with the running statistics of ``norm``.

    weight' = weight * gamma / sqrt(var + eps); bias' = beta + (bias - mean) * gamma / sqrt(...).
    Computed in float64, stored in the dtype of the convolution.
    """
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    beta = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    factor = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias
    bias = beta.double() + (bias.double() - norm.running_mean.double()) * factor
    weight = conv.weight.double()
    if isinstance(conv, nn.ConvTranspose2d):
        weight = channels_exchanged(weight, conv.groups) * factor.view(-1, 1, 1, 1)
        weight = channels_exchanged(weight, conv.groups)
    else:
        weight = weight * factor.view(-1, 1, 1, 1)
    conv.weight.copy_(weight.to(conv.weight.dtype))
    if conv.bias is None:
        conv.bias = nn.Parameter(
            bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    else:
        conv.bias.copy_(bias.to(conv.bias.dtype))


class PlainNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of tensors of any rank that calls one function in one process."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class FrozenNorm(PlainNorm):
    """One that never trains."""

    def train(self, mode: bool = True) -> 'FrozenNorm':
        """Stay in eval mode."""
        return super().train(False)


# Not called as a plain one: across processes, or in other functions where gradients flow.
EXCHANGED = {nn.SyncBatchNorm: PlainNorm, FrozenBatchNorm2d: FrozenNorm}


@torch.no_grad()
def plain_norm(norm: nn.Module) -> PlainNorm:
    """The same function with the same parameters and statistics, as one call of ``batch_norm``."""
    options = {name: getattr(norm, name) for name in ('momentum', 'affine', 'track_running_stats')
               if hasattr(norm, name)}
    cls = EXCHANGED[type(norm)]
    plain = cls(norm.num_features, norm.eps, **options)
    state = norm.state_dict()
    plain.load_state_dict(state, strict=False)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(cls is not FrozenNorm and getattr(norm, name).requires_grad)
    device = next(iter(state.values())).device if state else None
    return plain.to(device).train(norm.training)


def _capture_calls(model: nn.Module, input_shape: Tuple[int, int]) -> CapturedGraph:
    """Capture on a small image, where that is possible: only who calls whom matters here."""
    device = device_of(model)
    small = tuple(min(size, SMALL_IMAGE) for size in input_shape)
    try:
        return capture(model, torch.zeros(1, 3, *small, device=device))
    except RuntimeError:  # for example a top-k of more queries than the small image has positions
        return capture(model, torch.zeros(1, 3, *input_shape, device=device))


def fold_batch_norms(model: nn.Module, input_shape: Tuple[int, int]) -> List[Tuple[str, str]]:
    """Fold every batch norm of ``model`` that follows a convolution; it becomes an identity.

    What cannot fold stays, with the statistics it has (see
    :func:`mmdet_bpu.graph.decompositions.open_batch_norm`), synchronised and frozen norms as
    plain ones.

    Returns:
        list[tuple[str, str]]: The folded (convolution, norm) paths.
    """
    pairs = foldable_pairs(model, _capture_calls(model, input_shape))
    for conv_path, norm_path in pairs:
        fold_pair(model.get_submodule(conv_path), model.get_submodule(norm_path))
        parent, _, name = norm_path.rpartition('.')
        setattr(model.get_submodule(parent), name, nn.Identity())
    plain: Dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):  # twice where a module has two names
            if type(module) in EXCHANGED:
                plain.setdefault(module, plain_norm(module))
                setattr(parent, name, plain[module])
    return pairs
