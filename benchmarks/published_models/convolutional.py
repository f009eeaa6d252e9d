"""GoogLeNet (Szegedy et al., 2015) and YOLOv2 on Darknet19 (Redmon and Farhadi, 2017)."""
import torch
from torch import Tensor, nn

from published_models.blocks import convolution


class Inception(nn.Module):
    """Four branches, joined: 1 x 1, two of 1 x 1 and 3 x 3, a pooled one.

    Args:
        channels (int): Of the input.
        one, reduced, three, reduced_two, three_two, pooled (int): Filters, as in table 1 of the
            paper; its 5 x 5 is 3 x 3, as in the implementation whose operations are published.
    """

    def __init__(self, channels: int, one: int, reduced: int, three: int, reduced_two: int,
                 three_two: int, pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList((
            convolution(channels, one),
            nn.Sequential(convolution(channels, reduced), convolution(reduced, three, 3)),
            nn.Sequential(convolution(channels, reduced_two),
                          convolution(reduced_two, three_two, 3)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(channels, pooled))))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Sequential):
    """Without its auxiliary classifiers; (N, 3, 224, 224) -> (N, 1024, 7, 7)."""

    def __init__(self) -> None:
        def pool(kernel: int) -> nn.MaxPool2d:
            return nn.MaxPool2d(kernel, 2, ceil_mode=True)

        super().__init__(
            convolution(3, 64, 7, 2), pool(3), convolution(64, 64), convolution(64, 192, 3), pool(3),
            Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64),
            pool(3),
            Inception(480, 192, 96, 208, 16, 48, 64), Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64), Inception(512, 112, 144, 288, 32, 64, 64),
            Inception(528, 256, 160, 320, 32, 128, 128), pool(2),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128))


def leaky(channels: int, filters: int, kernel: int) -> nn.Sequential:
    """Darknet's convolution."""
    return convolution(channels, filters, kernel, activation=nn.LeakyReLU(0.1))


def stage(channels: int, filters: int, layers: int) -> nn.Sequential:
    """3 x 3 and, between them, 1 x 1 of half the filters."""
    parts = [leaky(channels, filters, 3)]
    for _ in range(layers // 2):
        parts += [leaky(filters, filters // 2, 1), leaky(filters // 2, filters, 3)]
    return nn.Sequential(*parts)


class YOLOv2(nn.Module):
    """Five anchors, 80 classes; (N, 3, 608, 608) -> (N, 425, 19, 19)."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2, 2)
        self.fine = nn.Sequential(
            leaky(3, 32, 3), pool, leaky(32, 64, 3), pool, stage(64, 128, 3), pool,
            stage(128, 256, 3), pool, stage(256, 512, 5))
        self.coarse = nn.Sequential(pool, stage(512, 1024, 5), leaky(1024, 1024, 3),
                                    leaky(1024, 1024, 3))
        self.passed = leaky(512, 64, 1)
        self.head = nn.Sequential(leaky(1280, 1024, 3), nn.Conv2d(1024, 425, 1))

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        passed = self.passed(fine)
        batch, channels, height, width = passed.shape
        blocks = passed.reshape(batch, channels, height // 2, 2, width // 2, 2)
        blocks = blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // 2, width // 2)
        return self.head(torch.cat([blocks, self.coarse(fine)], 1))
