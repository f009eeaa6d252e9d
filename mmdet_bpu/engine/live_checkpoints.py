"""Checkpoints of QAT with live batch norms, as those of a folded detector."""
from typing import Dict, Sequence

import torch
from torch import Tensor, nn

from mmdet_bpu.engine.loading import load_strictly, without_wrapper
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.live_norms import LiveNorm, transposed_groups
from mmdet_bpu.quantization.saved_norms import live_in


@torch.no_grad()
def folded_state(model: nn.Module, state_dict: Dict[str, Tensor], pairs: Sequence[Sequence[str]],
                 path: str) -> Dict[str, Tensor]:
    """Weights of a checkpoint with every norm in its convolution, as evaluation has had them.

    Args:
        model (nn.Module): The detector as its config builds it, not folded; stays as it is.
        state_dict (dict): Of the file.
        pairs (Sequence): Paths of (convolution, norm) that are folded.
        path (str): The file, for messages.

    Raises:
        BpuError: What it says of a norm does not fit.
    """
    state = without_wrapper(state_dict, path)
    live = live_in(state, pairs)
    for conv_path, norm_path in pairs:
        if norm_path not in live:
            continue
        conv = model.get_submodule(conv_path)
        norm = LiveNorm.of(model.get_submodule(norm_path), conv).cpu()
        held = {name: state.pop(f'{norm_path}.{name}') for name in norm.state_dict()
                if f'{norm_path}.{name}' in state}
        load_strictly(norm, held, f'{path} ({norm_path})')
        if not norm.is_live:
            continue
        names = [f'{conv_path}.{name}' for name in ('weight', 'bias')]
        weight, bias = (state.get(name) for name in names)
        if not isinstance(weight, Tensor) or weight.shape != conv.weight.shape \
                or not isinstance(bias, Tensor) or bias.shape != norm.bias.shape:
            raise BpuError(f'checkpoint {path}: the norm {norm_path} is live, and '
                           f'{" and ".join(names)} are not there or of other shapes; give a '
                           'checkpoint of the same config')
        factor = norm.factor()
        state[names[0]] = norm.folded_weight(weight.to(norm.unit), factor, transposed_groups(conv))
        state[names[1]] = norm.folded_bias(factor)
    return state
