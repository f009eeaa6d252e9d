"""Batch norms folded into the convolutions before them, in a detector and in its captured graph."""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from torch import fx, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.quantization.live_norms import (CONVOLUTIONS, LiveNorm, per_channel,
                                               transposed_groups)

Pair = Tuple[str, str]
DEFORMABLE = (DeformConv2d, ModulatedDeformConv2d)
MODULES = {'conv2d': nn.Conv2d, 'conv_transpose2d': nn.ConvTranspose2d, 'deform_conv2d': DEFORMABLE}
"""Function of a convolution -> classes of the modules whose weights it reads."""
FOLDED_INTO = (nn.Conv2d, nn.ConvTranspose2d, *DEFORMABLE)
WEIGHT = {'conv2d': 1, 'conv_transpose2d': 1, 'deform_conv2d': 2}
BIAS = {'conv2d': 2, 'conv_transpose2d': 2, 'deform_conv2d': 4}
"""Function of a convolution -> position of its weight and bias among the call's arguments."""


def _calls(captured: CapturedGraph) -> dict:
    """Module path -> convolutions and norms that ran in it; padding of its own does not count."""
    calls: dict = {}
    for node in captured.graph.nodes:
        if node.op == 'call_function' and function_name(node.target) in (*BIAS, 'batch_norm'):
            calls.setdefault(node.meta['path'], []).append(node)
    return calls


def _reads_own_weight(conv: fx.Node, captured: CapturedGraph, module: nn.Module) -> bool:
    weight = conv.args[WEIGHT[function_name(conv.target)]]
    return weight.op == 'get_attr' and \
        captured.constants[weight.target].data_ptr() == module.weight.data_ptr()


def _foldable(model: nn.Module, captured: CapturedGraph) -> List[Tuple[fx.Node, fx.Node]]:
    """(convolution, batch norm) calls where only the norm reads the convolution.

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
        if conv.op != 'call_function' or function_name(conv.target) not in BIAS \
                or len(conv.users) != 1:
            continue
        paths = conv.meta['path'], node.meta['path']
        conv_module, norm = (model.get_submodule(p) for p in paths)
        if isinstance(conv_module, MODULES[function_name(conv.target)]) \
                and _reads_own_weight(conv, captured, conv_module) \
                and isinstance(norm, nn.modules.batchnorm._BatchNorm) \
                and norm.running_mean is not None and all(len(calls[p]) == 1 for p in paths):
            pairs.append((conv, node))
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
    old = getattr(conv, 'bias', None)  # mmcv's DeformConv2d has no such attribute
    bias = torch.zeros_like(norm.running_mean) if old is None else old
    bias = beta.double() + (bias.double() - norm.running_mean.double()) * factor
    weight = per_channel(conv.weight.double(), factor, transposed_groups(conv))
    conv.weight.copy_(weight.to(conv.weight.dtype))
    if old is None:
        conv.bias = nn.Parameter(
            bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    else:
        conv.bias.copy_(bias.to(conv.bias.dtype))


def require_pairs(model: nn.Module, pairs: Sequence[Sequence[str]], path: str) -> None:
    """Refuse a checkpoint that folds what a detector has not.

    Args:
        model (nn.Module): Not folded.
        pairs (Sequence): Paths of (convolution, batch norm).
        path (str): The checkpoint, for messages.

    Raises:
        BpuError: A path leads nowhere, or to another kind of module.
    """
    modules = dict(model.named_modules())
    for conv_path, norm_path in pairs:
        conv, norm = modules.get(conv_path), modules.get(norm_path)
        if isinstance(conv, FOLDED_INTO) and isinstance(norm, nn.modules.batchnorm._BatchNorm) \
                and norm.running_mean is not None:
            continue
        found = [f'{each} is {"not there" if module is None else type(module).__name__}'
                 for each, module in ((conv_path, conv), (norm_path, norm))]
        raise BpuError(f'checkpoint {path} is of another detector than this {type(model).__name__}: it has '
                       f'the batch norm {norm_path} folded into the convolution {conv_path}, and here '
                       f'{", ".join(found)}. Give the config that it was made with, or calibrate again')


def fold_named(model: nn.Module, pairs: Sequence[Sequence[str]]) -> Dict[str, LiveNorm]:
    """Fold (convolution, batch norm) pairs given by their paths; each norm becomes an identity.

    Returns:
        dict[str, LiveNorm]: Path of a convolution -> its norm as it was, of those that can be live.
    """
    kept = {}
    for conv_path, norm_path in pairs:
        conv, norm = model.get_submodule(conv_path), model.get_submodule(norm_path)
        if isinstance(conv, CONVOLUTIONS):
            kept[conv_path] = LiveNorm.of(norm, conv)
        fold_pair(conv, norm)
        set_submodule(model, norm_path, nn.Identity())
    return kept


def set_submodule(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` in the place of another."""
    parent, _, name = path.rpartition('.')
    setattr(model.get_submodule(parent), name, module)


def fold_captured(model: nn.Module, captured: CapturedGraph,
                  kept: Optional[Dict[str, LiveNorm]] = None) -> List[Pair]:
    """Fold every batch norm of ``model`` that follows a convolution; it becomes an identity.

    The captured graph is brought to what a capture of the folded model would be.

    Args:
        model (nn.Module): The detector.
        captured (CapturedGraph): Its graph.
        kept (dict, optional): Is given what :func:`fold_named` returns.

    Returns:
        list[tuple[str, str]]: The folded (convolution, norm) paths.
    """
    calls = _foldable(model, captured)
    pairs = [(conv.meta['path'], norm.meta['path']) for conv, norm in calls]
    norms = fold_named(model, pairs)
    if kept is not None:
        kept.update(norms)
    for conv, norm in calls:
        _splice(captured, conv, norm, model.get_submodule(conv.meta['path']))
    return pairs


def _splice(captured: CapturedGraph, conv: fx.Node, norm: fx.Node, module: nn.Module) -> None:
    """Take a norm's call out of the graph and give the convolution's call its bias."""
    norm.replace_all_uses_with(conv)
    for node in captured.graph.nodes:
        if norm.name in node.meta.get('tensor_args', ()):
            node.meta['tensor_args'] = tuple(
                conv.name if name == norm.name else name for name in node.meta['tensor_args'])
    captured.graph.erase_node(norm)
    position = BIAS[function_name(conv.target)]
    if conv.args[position] is not None:
        return  # its bias has changed in place
    with captured.graph.inserting_before(conv):
        bias = captured.add_constant(module.bias, conv.meta['path'], learned=True)
    conv.args = (*conv.args[:position], bias, *conv.args[position + 1:])
    conv.meta['tensor_args'] = (*conv.meta['tensor_args'], bias.name)
