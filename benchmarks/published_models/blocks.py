"""Convolutions with their norm, and a network as a detector: what these models are made of."""
from typing import Any, Optional

from torch import Tensor, nn


def convolution(channels: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                activation: Optional[nn.Module] = None) -> nn.Sequential:
    """Convolution, batch norm and an activation, by default ReLU; ``nn.Identity()`` for none."""
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters), nn.ReLU() if activation is None else activation)


def separable(channels: int, filters: int, stride: int = 1,
              activation: Optional[nn.Module] = None) -> nn.Sequential:
    """Depthwise 3 x 3, then 1 x 1 (Howard et al., "MobileNets", 2017); ``activation`` ends it."""
    return nn.Sequential(convolution(channels, channels, 3, stride, channels),
                         convolution(channels, filters, activation=activation))


class Network(nn.Module):
    """Any network in the shape of a detector: features by ``extract_feat``, then a head.

    Args:
        body (nn.Module): Image (N, 3, H, W) -> what is deployed.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.bbox_head = nn.Identity()

    def extract_feat(self, image: Tensor) -> Any:
        return self.body(image)

    def forward(self, image: Tensor, *unused: Any, **settings: Any) -> Any:
        return self.bbox_head(self.extract_feat(image))


class Classifier(nn.Module):
    """Backbone, mean over pixels and a linear layer.

    Args:
        backbone (nn.Module): Gives feature maps, the deepest one last.
        channels (int): Of that one.
        classes (int): Defaults to those of ImageNet.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        deepest = features[-1] if isinstance(features, (list, tuple)) else features
        return self.classifier(deepest.mean((2, 3)))
