"""Which parameters something is learned for where no label is."""
from typing import List, Sequence

import torch
from torch import nn

from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.quantization.distillation.selections import Selections
from mmdet_bpu.quantization.distillation.signals import deployed_signals
from mmdet_bpu.quantization.fake_quant import QuantState
from mmdet_bpu.quantization.live_norms import norms_inside


def freeze_unreached(detector: nn.Module, modules: Sequence[str] = ()) -> List[str]:
    """Let no parameter train that no signal depends on, and return their names.

    These are the heads of layers that are not deployed. DDP waits for the gradient of every parameter
    that trains. The gradients themselves are asked for: activation checkpointing hides parameters
    from the graph of autograd.

    Args:
        detector (nn.Module): A prepared detector that has no gradients; nothing else of it changes.
        modules (Sequence[str]): Paths of modules whose results are features.
    """
    norms = list(norms_inside(detector))
    beside = {id(p) for _, _, norm in norms for p in norm.parameters()}
    trained = {name: p for name, p in detector.named_parameters()
               if p.requires_grad and not name.startswith('quant.') and id(p) not in beside}
    quant, state = detector.quant, detector.quant.state
    quant.set_state(QuantState.OFF)
    image = torch.zeros(quant.networks[0].input_shape, device=device_of(detector))
    with torch.enable_grad(), Selections() as selections:
        signals = deployed_signals(detector, image, modules)
        signals.selections = selections.found
        sum(each.float().sum() for each in signals.tensors() if each.requires_grad).backward()
    quant.set_state(state)
    unreached = [name for name, p in trained.items() if p.grad is None]
    for p in trained.values():
        p.requires_grad, p.grad = p.grad is not None, None
    for _, conv, norm in norms:  # none is live yet
        for p in norm.parameters():
            p.requires_grad = p.requires_grad and conv.weight.requires_grad
    return unreached
