"""Weights of a transposed convolution with their output channels first, as all others have them."""
from torch import Tensor


def channels_exchanged(weight: Tensor, groups: int) -> Tensor:
    """The same weights with input and output channels exchanged; its own inverse.

    Args:
        weight (Tensor): (C, O / groups, KH, KW), which is how torch holds the weights of a
            transposed convolution, or (O, C / groups, KH, KW).
        groups (int): Channel groups.

    Returns:
        Tensor: (O, C / groups, KH, KW), or (C, O / groups, KH, KW).
    """
    first, second, *window = weight.shape
    grouped = weight.reshape(groups, first // groups, second, *window)
    return grouped.transpose(1, 2).reshape(groups * second, first // groups, *window)
