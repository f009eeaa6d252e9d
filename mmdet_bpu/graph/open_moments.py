"""Variances and standard deviations written as means of squares."""
from math import prod
from typing import Any, Optional, Sequence, Union

import torch
from torch import Tensor


def open_var(input: Tensor,
             dim: Union[None, bool, int, Sequence[int]] = None,
             unbiased: bool = True,
             keepdim: bool = False,
             *,
             correction: Optional[float] = None,
             **kwargs: Any) -> Tensor:
    """``mean((x - mean(x)) ** 2) * n / (n - correction)`` over ``dim``.

    ``torch.var(x, False)`` gives ``unbiased`` in the place of ``dim``.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if kwargs:
        return NotImplemented
    dims = list(range(input.dim())) if dim is None else dim
    count = prod(input.shape[d] for d in ([dims] if isinstance(dims, int) else dims))
    correction = int(unbiased) if correction is None else correction
    if count <= correction:
        return NotImplemented  # torch gives NaN or inf
    centred = input - torch.mean(input, dims, keepdim=True)
    variance = torch.mean(torch.mul(centred, centred), dims, keepdim=keepdim)
    return variance * (count / (count - correction)) if correction else variance


def open_std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The square root of :func:`open_var`."""
    variance = open_var(input, *args, **kwargs)
    return variance if variance is NotImplemented else torch.sqrt(variance)
