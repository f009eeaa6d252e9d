"""A ResNet-50 trunk that every toolkit can quantize.

It has the shapes of the detectors' backbone (He et al. 2015, table 1) and neither neck nor head. No
module is called twice and nothing is in place: torchao's patterns do not match a stock backbone.
"""
import torch
from torch import nn


def convolution(channels: int, out: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """A convolution and its batch norm."""
    return nn.Sequential(nn.Conv2d(channels, out, size, stride, size // 2, bias=False),
                         nn.BatchNorm2d(out))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(channels, width), nn.ReLU(),
                                  convolution(width, width, 3, stride), nn.ReLU(),
                                  convolution(width, 4 * width))
        self.shortcut = convolution(channels, 4 * width, 1, stride) \
            if channels != 4 * width else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, 4 x width, H / stride, W / stride)."""
        return self.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Sequential:
    """Stem and four stages, with random weights."""
    blocks, channels = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            blocks.append(Bottleneck(channels, 64 << stage, 2 if stage and not block else 1))
            channels = 256 << stage
    return nn.Sequential(*blocks)
