"""Batch norms folded into the convolutions before them."""
from typing import List, Tuple

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from torch import nn

from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.graph.capture import CapturedGraph, capture
from mmdet_bpu.graph.sites import function_name

CONVOLUTIONS = ('conv2d', 'deform_conv2d')
CONVOLUTION_MODULES = (nn.Conv2d, DeformConv2d, ModulatedDeformConv2d)
SMALL_IMAGE = 256  # px; enough positions for the queries of the stock two-stage configs


def _calls(captured: CapturedGraph) -> dict:
    """Module path -> convolutions and norms that ran in it; padding of its own does not count."""
    calls: dict = {}
    for node in captured.graph.nodes:
        if node.op == 'call_function' \
                and function_name(node.target) in (*CONVOLUTIONS, 'batch_norm'):
            calls.setdefault(node.meta['path'], []).append(node)
    return calls


def foldable_pairs(model: nn.Module, captured: CapturedGraph) -> List[Tuple[str, str]]:
    """(convolution path, batch norm path) where only the norm reads the convolution.

    Both modules must be called once: a shared one has no single scale to take in.
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
        if isinstance(conv_module, CONVOLUTION_MODULES) and isinstance(norm, nn.BatchNorm2d) \
                and norm.track_running_stats and all(len(calls[p]) == 1 for p in paths):
            pairs.append(paths)
    return pairs


@torch.no_grad()
def fold_pair(conv: nn.Module, norm: nn.BatchNorm2d) -> None:
    """``norm(conv(x))`` as one convolution, with the running statistics of ``norm``.

    weight' = weight * gamma / sqrt(var + eps); bias' = beta + (bias - mean) * gamma / sqrt(...).
    Computed in float64, stored in the dtype of the convolution.
    """
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    beta = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    factor = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    # mmcv's DeformConv2d has no such attribute.
    old = getattr(conv, 'bias', None)
    bias = torch.zeros_like(norm.running_mean) if old is None else old
    bias = beta.double() + (bias.double() - norm.running_mean.double()) * factor
    conv.weight.copy_((conv.weight.double() * factor.view(-1, 1, 1, 1)).to(conv.weight.dtype))
    if old is None:
        conv.bias = nn.Parameter(
            bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    else:
        conv.bias.copy_(bias.to(conv.bias.dtype))


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

    Returns:
        list[tuple[str, str]]: The folded (convolution, norm) paths.
    """
    pairs = foldable_pairs(model, _capture_calls(model, input_shape))
    for conv_path, norm_path in pairs:
        fold_pair(model.get_submodule(conv_path), model.get_submodule(norm_path))
        parent, _, name = norm_path.rpartition('.')
        setattr(model.get_submodule(parent), name, nn.Identity())
    return pairs
