"""ViT-small (Dosovitskiy et al., 2021; Touvron et al., 2021): attention written out."""
import torch
from torch import Tensor, nn



class Attention(nn.Module):
    """Self-attention of (N, L, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        parts = self.inputs(x).reshape(batch, length, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * (channels // self.heads)**-0.5) @ key.transpose(-2, -1)
        mixed = scores.softmax(-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(batch, length, channels))


class Block(nn.Module):
    """Attention and two linear layers, each behind a layer norm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(channels), Attention(channels, heads))
        self.feed = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 4 * channels),
                                  nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.feed(x)


class ViTSmall(nn.Module):
    """Patches of 16 px, 384 channels, 6 heads, 12 blocks; (N, 3, 224, 224) -> (N, 1000)."""
    PATCH, CHANNELS, HEADS, DEPTH, SIDE, CLASSES = 16, 384, 6, 12, 224, 1000

    def __init__(self) -> None:
        super().__init__()
        tokens = (self.SIDE // self.PATCH)**2 + 1
        self.patches = nn.Conv2d(3, self.CHANNELS, self.PATCH, self.PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, self.CHANNELS))
        self.positions = nn.Parameter(torch.zeros(1, tokens, self.CHANNELS))
        self.blocks = nn.Sequential(*(Block(self.CHANNELS, self.HEADS)
                                      for _ in range(self.DEPTH)))
        self.norm = nn.LayerNorm(self.CHANNELS)
        self.classifier = nn.Linear(self.CHANNELS, self.CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.classifier(self.norm(self.blocks(x))[:, 0])
