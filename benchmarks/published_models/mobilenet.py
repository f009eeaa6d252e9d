"""MobileNetV1 (Howard et al., 2017) and what is built on it: SSD and a UNet of separable blocks."""
from typing import List, Tuple

from torch import Tensor, nn
from torch.nn import functional as F

from published_models.blocks import convolution, separable

# Filters and stride of each separable block behind the first convolution (table 1 of the paper).
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
          (512, 1), (512, 1), (1024, 2), (1024, 1))
STEM = 32


class MobileNetV1(nn.Module):
    """Feature maps of all strides, 2 to 32.

    Args:
        width (float): Factor on all channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = int(STEM * width)
        stages = [[convolution(3, channels, 3, 2)]]
        for filters, stride in BLOCKS:
            filters = int(filters * width)
            if stride == 2:
                stages.append([])
            stages[-1].append(separable(channels, filters, stride))
            channels = filters
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)

    def forward(self, image: Tensor) -> List[Tensor]:
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


class SSDMobileNetV1(nn.Module):
    """SSD at 300 x 300 for the 20 classes of VOC: six maps, predicted by 1 x 1 convolutions.

    Extra layers and anchors are those of the usual MobileNet-SSD for VOC.
    """
    EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))
    ANCHORS = (3, 6, 6, 6, 6, 6)
    CLASSES, BOX = 21, 4

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetV1()
        self.extra = nn.ModuleList()
        channels = [512, 1024]
        for narrow, wide in self.EXTRA:
            self.extra.append(nn.Sequential(convolution(channels[-1], narrow),
                                            convolution(narrow, wide, 3, 2)))
            channels.append(wide)
        self.boxes = nn.ModuleList(nn.Conv2d(c, a * self.BOX, 1)
                                   for c, a in zip(channels, self.ANCHORS))
        self.classes = nn.ModuleList(nn.Conv2d(c, a * self.CLASSES, 1)
                                     for c, a in zip(channels, self.ANCHORS))

    def forward(self, image: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
        maps = list(self.backbone(image)[-2:])
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return ([conv(x) for conv, x in zip(self.classes, maps)],
                [conv(x) for conv, x in zip(self.boxes, maps)])


class UpAndJoin(nn.Module):
    """A coarse map, doubled, and a finer one of half its channels, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.coarse = separable(channels, half)
        self.fine = nn.Sequential(separable(half, half),
                                  separable(half, half, activation=nn.Identity()))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        doubled = F.interpolate(self.coarse(coarse), scale_factor=2, mode='bilinear')
        return F.relu(self.fine(fine) + doubled)


class UnetMobileNetV1(nn.Module):
    """Segmentation of 19 classes at stride 4, a quarter of the width, out of separable blocks.

    What is deployed is the class of a pixel: 1 channel, here the largest score, which moves the
    same bytes as its index.
    """
    WIDTH, COARSEST, CLASSES = 0.25, 512, 19

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MobileNetV1(self.WIDTH)
        self.coarsest = nn.Sequential(separable(256, self.COARSEST, 2),
                                      separable(self.COARSEST, self.COARSEST))
        self.joins = nn.ModuleList(UpAndJoin(self.COARSEST >> level) for level in range(4))
        self.out = separable(32, 32)
        self.scores = nn.Conv2d(32, self.CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.backbone(image)
        x = self.coarsest(maps[-1])
        for join, fine in zip(self.joins, reversed(maps)):
            x = join(x, fine)
        return self.scores(self.out(x)).amax(1, keepdim=True)
