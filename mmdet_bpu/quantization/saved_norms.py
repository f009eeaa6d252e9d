"""Batch norms in checkpoints: what QAT needs of folded ones, and which ones a run has had live."""
from typing import Any, Dict, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.quantization.live_norms import LiveNorm
from mmdet_bpu.quantization.norm_states import FIELD, FOLDED

VERSION = 1
KEY = 'bpu_batch_norms'
"""Where the checkpoint of a calibration keeps them."""
KEPT = ('weight', 'running_mean', 'running_var')


def to_plain(norms: Mapping[str, LiveNorm]) -> Dict[str, Any]:
    """Plain data: path of a convolution -> gamma, mean and variance of its folded norm."""
    return dict(version=VERSION, norms={
        path: {name: getattr(norm, name).detach().cpu().clone() for name in KEPT}
        for path, norm in norms.items()})


@torch.no_grad()
def give(norms: Mapping[str, LiveNorm], checkpoint: Mapping[str, Any], path: str) -> None:
    """Give norms what a calibration's checkpoint says of them.

    Args:
        norms (Mapping[str, LiveNorm]): Path of a convolution -> its norm; changed in place.
        checkpoint (Mapping): Content of the file.
        path (str): The file, for messages.

    Raises:
        BpuError: It says nothing of them, is of a version that is not known here, or damaged.
    """
    plain = checkpoint.get(KEY)
    if plain is None:
        raise BpuError(f'checkpoint {path} was written before mmdet_bpu kept the statistics of folded '
                       f'batch norms, and {FIELD} goes on with them: calibrate again, or set it to '
                       f"'{FOLDED}'")
    found = plain.get('version') if isinstance(plain, Mapping) else None
    if found != VERSION:
        raise BpuError(f'checkpoint {path}: its batch norms are of version {found}, this mmdet_bpu '
                       f'reads {VERSION}; calibrate again')
    saved = plain.get('norms')
    if not isinstance(saved, Mapping) or not all(
            path in saved and _fits(saved[path], norm) for path, norm in norms.items()):
        raise BpuError(f'checkpoint {path}: its batch norms are damaged; calibrate again')
    for conv_path, norm in norms.items():
        for name in KEPT:
            getattr(norm, name).copy_(saved[conv_path][name])


def _fits(saved: Any, norm: LiveNorm) -> bool:
    return isinstance(saved, Mapping) and all(
        isinstance(saved.get(name), Tensor) and saved[name].shape == getattr(norm, name).shape
        and saved[name].is_floating_point() and bool(torch.isfinite(saved[name]).all())
        for name in KEPT) and bool((saved['running_var'] >= 0).all())


def live_in(state_dict: Mapping[str, Tensor], folded: Sequence[Sequence[str]]) -> set:
    """Paths of the norms that weights hold beside their convolutions, live or not any more."""
    return {norm for _, norm in folded if f'{norm}.unit' in state_dict}


def refuse_other_norms(model: nn.Module, state_dict: Mapping[str, Tensor], path: str) -> None:
    """Refuse to resume a run that has had another ``bpu.qat.batch_norm``.

    Raises:
        BpuError: Norms are live in one and folded from the start in the other.
    """
    names = {name.removeprefix('module.') for name in state_dict}
    saved = live_in(dict.fromkeys(names), model.quant.folded)
    own = {norm for _, norm in model.quant.folded
           if isinstance(model.get_submodule(norm), LiveNorm)}
    if bool(saved) != bool(own):
        when = 'step by step' if saved else 'from the start'
        raise BpuError(f'checkpoint {path} is of a run whose batch norms were folded {when}: resume '
                       f'it with the {FIELD} that it was begun with, or begin another run')
    if saved != own:
        raise BpuError(f'checkpoint {path} is of a run in which other batch norms were live: '
                       f'{first_names(sorted(saved ^ own))}; resume it with the config that it was '
                       'begun with')
