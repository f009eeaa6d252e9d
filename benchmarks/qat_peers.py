"""QAT steps of a ResNet-50 trunk by torchao and NNCF, where they are installed.

Each stands beside a float step: forward, a mean as loss, backward and SGD on 2 x 3 x 256 x 320.
"""
import copy
import statistics
from importlib.util import find_spec
from typing import Callable, Dict

import torch
from torch import nn
from training_steps import ratio, timed
from trunk import resnet50

IMAGES = (2, 3, 256, 320)


def torchao_trunk(trunk: nn.Module, images: torch.Tensor) -> nn.Module:
    """The trunk with the fake quantizers of torchao's PT2E flow for x86."""
    from torchao.quantization.pt2e import move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    exported = torch.export.export(trunk, (images, )).module()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(exported, quantizer)
    move_exported_model_to_train(prepared)
    return prepared


def nncf_trunk(trunk: nn.Module, images: torch.Tensor) -> nn.Module:
    """The trunk with NNCF's fake quantizers, calibrated on the images."""
    import nncf
    return nncf.quantize(trunk, nncf.Dataset([images]), subset_size=1)


PEERS: Dict[str, Callable[[nn.Module, torch.Tensor], nn.Module]] = {
    'torchao': torchao_trunk, 'nncf': nncf_trunk}
"""Package -> what makes its trunk for training."""


def training_step(model: nn.Module, images: torch.Tensor) -> Callable[[], float]:
    """Forward, backward and SGD."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step() -> float:
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def trunk_steps(repeats: int) -> dict:
    """Per package that is installed, its step over the float step; why not, where it fails."""
    torch.manual_seed(0)
    images = torch.randn(IMAGES)
    trunk = resnet50().train()
    found = {}
    for name in filter(find_spec, PEERS):
        try:
            peer = PEERS[name](copy.deepcopy(trunk), images)
            steps = timed({'float': training_step(trunk, images),
                           'peer': training_step(peer, images)}, repeats)
        except Exception as error:  # versions of packages that we do not choose
            found[name] = dict(failed=f'{type(error).__name__}: {str(error).splitlines()[0]}')
            continue
        found[name] = dict(qat_over_float=ratio(steps['peer'], steps['float']),
                           float_seconds=round(statistics.median(steps['float']), 4))
    return found
