"""FCOS3D (Wang et al., 2021) on EfficientNet-B0 without squeeze-and-excitation, with a BiFPN.

The vendor's variant: ReLU in the backbone, three BiFPN cells of 64 channels with plain sums (Tan
et al., "EfficientDet", 2020), heads of separable blocks of 256 channels.
"""
from typing import List

from torch import Tensor, nn
from torch.nn import functional as F

from published_models.blocks import convolution

# Expansion, filters, blocks, stride of the first, kernel (Tan and Le, "EfficientNet", 2019).
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
          (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
USED = (2, 4, 6)  # strides 8, 16, 32
WIDTH, HEAD = 64, 256


class InvertedResidual(nn.Module):
    """1 x 1 wider, depthwise, 1 x 1 narrower; added to the input where shapes allow."""

    def __init__(self, channels: int, filters: int, expansion: int, stride: int,
                 kernel: int) -> None:
        super().__init__()
        wide = channels * expansion
        parts = [convolution(channels, wide)] if expansion > 1 else []
        self.body = nn.Sequential(*parts, convolution(wide, wide, kernel, stride, wide),
                                  convolution(wide, filters, activation=nn.Identity()))
        self.adds = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class EfficientNetB0(nn.Module):
    """Feature maps of strides 8, 16 and 32 with 40, 112 and 320 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 32, 3, 2)
        self.stages, channels = nn.ModuleList(), 32
        for expansion, filters, blocks, stride, kernel in STAGES:
            parts = []
            for block in range(blocks):
                parts.append(InvertedResidual(channels, filters, expansion,
                                              1 if block else stride, kernel))
                channels = filters
            self.stages.append(nn.Sequential(*parts))

    def forward(self, image: Tensor) -> List[Tensor]:
        x, maps = self.stem(image), []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in USED:
                maps.append(x)
        return maps


class Joined(nn.Module):
    """Sum of maps on one scale, ReLU, separable convolution."""

    def __init__(self, inputs: List[int]) -> None:
        super().__init__()
        self.same = nn.ModuleList(
            nn.Identity() if channels == WIDTH
            else convolution(channels, WIDTH, activation=nn.Identity()) for channels in inputs)
        self.out = nn.Sequential(
            nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH, bias=False),
            convolution(WIDTH, WIDTH, activation=nn.Identity()))

    def forward(self, *maps: Tensor) -> Tensor:
        first, *others = (layer(x) for layer, x in zip(self.same, maps))
        for other in others:
            first = first + other
        return self.out(first)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='bilinear')


def halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2)


class BiFPNCell(nn.Module):
    """Five maps, down from the coarsest and up again."""

    def __init__(self, channels: List[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(Joined([channels[level], WIDTH if level < 3 else channels[4]])
                                  for level in range(4))
        self.up = nn.ModuleList(Joined([channels[level], WIDTH, WIDTH]) for level in (1, 2, 3))
        self.last = Joined([channels[4], WIDTH])

    def forward(self, maps: List[Tensor]) -> List[Tensor]:
        between = {4: maps[4]}
        for level in (3, 2, 1, 0):
            between[level] = self.down[level](maps[level], doubled(between[level + 1]))
        outs = [between[0]]
        for level in (1, 2, 3):
            outs.append(self.up[level - 1](maps[level], between[level], halved(outs[-1])))
        return [*outs, self.last(maps[4], halved(outs[-1]))]


def separable_plain(channels: int, filters: int) -> nn.Sequential:
    """Depthwise without norm or activation, then 1 x 1 with both."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, groups=channels),
                         convolution(channels, filters))


class Branch(nn.Module):
    """Separable block of some filters, if any, and the prediction."""

    def __init__(self, filters: int, outputs: int) -> None:
        super().__init__()
        self.block = separable_plain(HEAD, filters) if filters else nn.Identity()
        self.predict = nn.Conv2d(filters or HEAD, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.block(x))


class FCOS3D(nn.Module):
    """Class, attribute; offset, depth, size, rotation, velocity, direction, centre-ness."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetB0()
        self.extra = convolution(320, WIDTH, activation=nn.Identity())
        self.cells = nn.Sequential(BiFPNCell([40, 112, 320, WIDTH, WIDTH]),
                                   *(BiFPNCell([WIDTH] * 5) for _ in range(2)))
        towers = [nn.Sequential(separable_plain(WIDTH, HEAD), separable_plain(HEAD, HEAD))
                  for _ in range(2)]
        self.of_class, self.of_box = towers
        self.class_branches = nn.ModuleList((Branch(256, 10), Branch(256, 9)))
        self.box_branches = nn.ModuleList(
            Branch(filters, outputs) for filters, outputs in (
                (256, 2), (256, 1), (256, 3), (256, 1), (0, 2), (256, 2), (64, 1)))

    def forward(self, image: Tensor) -> List[List[Tensor]]:
        maps = self.backbone(image)
        maps.append(halved(self.extra(maps[-1])))
        maps.append(halved(maps[-1]))
        outputs = []
        for x in self.cells(maps):
            of_class, of_box = self.of_class(x), self.of_box(x)
            outputs.append([branch(of_class) for branch in self.class_branches]
                           + [branch(of_box) for branch in self.box_branches])
        return outputs
