"""Loading weights into a model: every key, shape and type has to fit, and every number be one."""
import logging
from collections import Counter
from typing import Any, Dict, List, Optional

import torch
from mmengine.logging import print_log
from torch import nn

from mmdet_bpu.errors import BpuError, first_names

WRAPPER = 'module.'
WEIGHT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What may be cast to a model's floats, with a note. Others are no weights: integers without their
scale, masks, float8 without its scale."""


def load_strictly(model: nn.Module, state_dict: Dict[str, torch.Tensor], path: str) -> None:
    """Load weights; every key has to be there, be known and have the model's shape and type.

    Floats of another width are cast, with a note. So are numbers that are integers in the model (a
    count of batches) and have been saved as floats with everything else.

    Args:
        model (nn.Module): The model, not wrapped.
        state_dict (dict): Name -> tensor. A leading ``module.`` (of a wrapper) is dropped.
        path (str): The file, for the message.

    Raises:
        BpuError: Missing or unexpected keys, other shapes or types, NaN or infinite values; they
            are named.
    """
    model.load_state_dict(fitting_weights(model, state_dict, path), strict=True)


def check_averages(model: nn.Module, checkpoint: Dict[str, Any], path: str) -> None:
    """Check the averaged weights that a run goes on with; the stock hook loads them itself.

    It has exchanged them with the others in the file, so both have to fit.

    Args:
        model (nn.Module): The model, not wrapped.
        checkpoint (dict): Content of the file.
        path (str): The file, for the message.

    Raises:
        BpuError: As :func:`load_strictly`.
    """
    averages = checkpoint.get('ema_state_dict')
    if averages is None:
        return
    if not isinstance(averages, dict):
        raise BpuError(f'checkpoint {path}: expected ema_state_dict to be a dict of weights, found '
                       f'{type(averages).__name__}')
    weights = {key: value for key, value in averages.items() if str(key).startswith(WRAPPER)}
    fitting_weights(model, weights, f'{path} (ema_state_dict)')
    fitting_weights(model, checkpoint['state_dict'], path)


def fitting_weights(model: nn.Module, state_dict: Dict[str, torch.Tensor],
                    path: str) -> Dict[str, torch.Tensor]:
    """The weights of a file as a model takes them; arguments and errors as :func:`load_strictly`."""
    weights = without_wrapper(state_dict, path)
    own = model.state_dict()
    common = [key for key in own if key in weights]
    shapes = {key: (_shape(own[key]), _shape(weights[key])) for key in common}
    complaints = _complaints({
        'missing': [key for key in own if key not in weights],
        'unexpected': [key for key in weights if key not in own],
        'of another shape': [f'{key} (model {expected}, file {found})'
                             for key, (expected, found) in shapes.items() if expected != found]})
    if complaints:
        raise BpuError(f'checkpoint {path} does not fit {type(model).__name__}:\n{complaints}'
                       '\nexpected a checkpoint of the same config; check backbone, number of '
                       'classes and queries, and the stage')
    unfit = [f'{key} ({reason})' for key in common
             if (reason := _unfit(own[key], weights[key])) is not None]
    if unfit:
        raise BpuError(f'checkpoint {path} holds tensors that {type(model).__name__} cannot take as '
                       f'weights: {first_names(unfit)}; expected float32 (float16, bfloat16 and float64 '
                       'are cast): save the float model')
    cast = {key: _cast(own[key], weights[key]) for key in common}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    not_finite = [f'{key} ({reason})' for key in common
                  if (reason := _not_finite(own[key], cast[key], key in parameters)) is not None]
    if not_finite:
        raise BpuError(f'checkpoint {path} holds values that are no numbers: {first_names(not_finite)}; '
                       'its training has diverged or the file is damaged: give an earlier one')
    _note_casts(own, weights, path)
    return cast


def without_wrapper(state_dict: Dict[str, Any], path: str) -> Dict[str, Any]:
    """Weights under the names of the model that was wrapped.

    Raises:
        BpuError: One of them is there twice.
    """
    weights = {}
    for key, value in state_dict.items():
        if not isinstance(key, str):
            raise BpuError(f'checkpoint {path}: expected names of weights, found the key {key!r}')
        name = key.removeprefix(WRAPPER)
        if name in weights:
            raise BpuError(f'checkpoint {path} holds both {name} and {WRAPPER}{name}, so it is '
                           'unknown which of them counts; save it again from one model')
        weights[name] = value
    return weights


def _shape(value: Any) -> Optional[tuple]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _unfit(own: Any, found: Any) -> Optional[str]:
    """Why a value of the file cannot be one of the model; None if it can."""
    if not isinstance(own, torch.Tensor):
        return None
    expected = str(own.dtype).removeprefix('torch.')
    if found.layout != torch.strided or found.is_quantized or found.is_meta:
        kind = 'quantized' if found.is_quantized else 'without data' if found.is_meta else 'sparse'
        return f'model {expected}, file {kind}'
    dtype = str(found.dtype).removeprefix('torch.')
    if own.dtype == found.dtype:
        return None
    if own.dtype.is_floating_point:
        fits = found.dtype in WEIGHT_DTYPES
    elif own.dtype.is_complex or own.dtype == torch.bool and not found.dtype.is_floating_point:
        fits = False
    else:
        fits = found.dtype != torch.bool and not found.dtype.is_complex \
            and torch.equal(found.to(own.dtype).to(found.dtype), found)
    return None if fits else f'model {expected}, file {dtype}'


def _cast(own: Any, found: Any) -> Any:
    return found.to(own.dtype) if isinstance(own, torch.Tensor) else found


def _not_finite(own: Any, value: Any, trained: bool) -> Optional[str]:
    """What of a float tensor is no number; None if all is, or if a buffer of the model is so too."""
    if not isinstance(own, torch.Tensor) or not own.dtype.is_floating_point \
            or bool(torch.isfinite(value).all()):
        return None
    if not trained and not bool(torch.isfinite(own).all()):
        return None
    nan, infinite = int(torch.isnan(value).sum()), int(torch.isinf(value).sum())
    return f'{nan} NaN, {infinite} infinite of {value.numel()}'


def _note_casts(own: Dict[str, Any], weights: Dict[str, Any], path: str) -> None:
    casts = Counter((weights[key].dtype, own[key].dtype) for key in own
                    if isinstance(own[key], torch.Tensor) and weights[key].dtype != own[key].dtype)
    for (found, expected), count in casts.items():
        print_log(f'{count} tensors of {path} are {str(found).removeprefix("torch.")} and are cast '
                  f'to {str(expected).removeprefix("torch.")}', 'current', logging.WARNING)


def _complaints(kinds: Dict[str, List[str]]) -> str:
    """A line for each kind that has members."""
    return '\n'.join(f'  {len(keys)} {what}: {first_names(keys)}'
                     for what, keys in kinds.items() if keys)
