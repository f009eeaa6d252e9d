"""Float references of what the vendor's tools insert at an input; see
:mod:`mmdet_bpu.hbir.camera_ops`.

Colours are rounded to 8 bits behind the conversion, as training and the integer form have them;
whether the vendor's unit rounds there is not published.
"""
from typing import List

import torch
from torch import Tensor

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.camera_ops import CSC_MODES, NO_CSC
from mmdet_bpu.runtime.color_conversion import CENTRE, rgb_of_yuv

_CONVERSIONS = {mode: (levels, order) for (levels, order), mode in CSC_MODES.items()}


def image_convert(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """(N, H, W, 3) or (N, H, W, 1), bytes less 128."""
    planes = [inputs[0]]
    if len(inputs) > 1:
        planes.append(inputs[1].repeat_interleave(2, 1).repeat_interleave(2, 2))
    return [torch.cat(planes, 3) - CENTRE]


def image_preprocess(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """``(csc(image) / divisor - mean) / sd``.

    Raises:
        BpuError: A mode that is not published.
    """
    image, csc = inputs[0], attrs['csc']
    if csc != NO_CSC:
        if csc not in _CONVERSIONS:
            raise BpuError(f'hbir.image_preprocess: expected one of {NO_CSC}, '
                           f'{", ".join(_CONVERSIONS)}, found {csc}')
        levels, order = _CONVERSIONS[csc]
        yuv = (image + CENTRE).to(torch.uint8).numpy()
        colors = rgb_of_yuv(levels, 'bt601').apply(yuv)
        image = torch.from_numpy(colors if order == 'rgb' else colors[..., ::-1].copy()).float()
    mean, sd = (torch.tensor(attrs[name], dtype=torch.float32) for name in ('mean', 'sd'))
    return [(image / attrs['divisor'] - mean) / sd]
