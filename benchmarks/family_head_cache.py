"""Run a head again and again while only its last layers change."""
from collections import deque
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator

import torch
from family_layers import PRODUCTS
from torch import Tensor, nn

MOST_KNOWN = 16  # inputs of one layer: more than it has levels


@contextmanager
def remembered_products(head: nn.Module, changing: Iterable[nn.Module]) -> Iterator[None]:
    """Let layers return what they returned before wherever they are given the same input.

    Args:
        head (nn.Module): Its convolutions and linear layers remember, call by call.
        changing (Iterable[nn.Module]): Those whose weights change meanwhile, which do not.
    """
    excluded = set(map(id, changing))
    layers = [layer for layer in head.modules()
              if isinstance(layer, PRODUCTS) and id(layer) not in excluded]
    for layer in layers:
        layer.forward = _Remembering(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class _Remembering:
    """A forward with its latest inputs and results, copied because callers write over them."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward, self.known = forward, deque(maxlen=MOST_KNOWN)

    def __call__(self, x: Tensor, *args: object) -> Tensor:
        if args:  # the mask of a masked convolution
            return self.forward(x, *args)
        for known, result in self.known:
            if known.shape == x.shape and torch.equal(known, x):
                return result.clone()
        result = self.forward(x)
        self.known.append((x, result.clone()))
        return result
