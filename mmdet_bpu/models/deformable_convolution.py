"""mmcv's deformable convolutions as modules that run without compiled ops and that a tracer sees.

TOOD's head calls the op itself to sample its boxes, by a name that it has imported. Another
function under that name would be another one for every model of the process, so it is the head's
class that is exchanged, as the modules' are.
"""
from typing import Dict, Optional, Tuple, Type

import torch
from mmcv.ops.deform_conv import DeformConv2d, DeformConv2dPack
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2d, ModulatedDeformConv2dPack
from mmdet.models.dense_heads.tood_head import TOODHead
from torch import Tensor, nn

from mmdet_bpu.models.deform_conv2d import Window, deform_conv2d


def _deform(module: nn.Module, x: Tensor, offset: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    """Run a deformable convolution with the parameters and the geometry of ``module``."""
    return deform_conv2d(
        x, offset, module.weight, mask, getattr(module, 'bias', None), stride=module.stride,
        padding=module.padding, dilation=module.dilation, groups=module.groups,
        offset_groups=module.deform_groups)


class OpenDeformConv2d(DeformConv2d):
    """v1 with offsets from elsewhere, ``(N, deform_groups * KH * KW * 2, OH, OW)``.

    mmcv pads an image that is smaller than the kernel and cuts the result, because its op refuses
    such images. Ours does not, and outside the image there are zeros anyway.
    """

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, O, OH, OW)``."""
        return _deform(self, x, offset)


class OpenDeformConv2dPack(DeformConv2dPack):
    """v1 that makes its own offsets: conv type ``DCN``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, O, OH, OW)``."""
        return _deform(self, x, self.conv_offset(x))


class OpenModulatedDeformConv2d(ModulatedDeformConv2d):
    """v2 with offsets and mask from elsewhere.

    mmcv's op does not look at the size of either, it reads as many values as it needs from the
    beginning of each image's memory. DyHead relies on it, as the code of its paper does: it passes
    maps of one level with an image of the next, which is half as large. Its trained weights know
    nothing else, so that reading is spelled out here.
    """

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, O, OH, OW)``; offset and mask of that size or a larger one."""
        window = Window(self.kernel_size, self.stride, self.padding, self.dilation, self.groups,
                        self.deform_groups)
        size = window.output_size(x.shape[2:])
        return _deform(self, x, _read_from_start(offset, size), _read_from_start(mask, size))


class OpenModulatedDeformConv2dPack(ModulatedDeformConv2dPack):
    """v2 that makes its own offsets and mask: conv type ``DCNv2``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, O, OH, OW)``."""
        first, second, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        return _deform(self, x, torch.cat((first, second), dim=1), torch.sigmoid(mask))


def _read_from_start(maps: Tensor, size: Tuple[int, int]) -> Tensor:
    """The first values of each image's maps ``(N, M, H, W)``, laid out as ``(N, M, *size)``."""
    count = maps.shape[1] * size[0] * size[1]
    if maps.shape[2:] == size or maps[0].numel() < count:
        return maps  # of other maps than these, deform_conv2d says what is wrong
    return maps.flatten(1)[:, :count].unflatten(1, (maps.shape[1], *size))


class OpenTOODHead(TOODHead):
    """TOOD's head with our function in place of mmcv's."""

    def deform_sampling(self, feat: Tensor, offset: Tensor) -> Tensor:
        """Each box coordinate ``(N, 4, H, W)`` from its own place, offsets ``(N, 8, H, W)``.

        A depthwise product with weights of 1, as TOOD has it, is sampling.
        """
        channels = feat.shape[1]
        return deform_conv2d(
            feat, offset, feat.new_ones(channels, 1, 1, 1), stride=1, padding=0, dilation=1,
            groups=channels, offset_groups=channels)


OPEN_CLASSES: Dict[Type[nn.Module], Type[nn.Module]] = {
    opened.__base__: opened
    for opened in (OpenDeformConv2d, OpenDeformConv2dPack, OpenModulatedDeformConv2d,
                   OpenModulatedDeformConv2dPack, OpenTOODHead)
}


def open_deformable_convolution(model: nn.Module) -> int:
    """Exchange the class of every module of ``model`` that calls mmcv's op; weights stay.

    Subclasses other than mmcv's own are left alone: their ``forward`` may be another one.

    Returns:
        int: How many modules were changed.
    """
    changed = 0
    for module in model.modules():
        if type(module) in OPEN_CLASSES:
            module.__class__ = OPEN_CLASSES[type(module)]
            changed += 1
    return changed
