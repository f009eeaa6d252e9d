"""Translation of calls that rearrange pixels: shuffles, unfolding, repetition, roll, flip, pad."""
import math

import torch
from torch import fx

from mmdet_bpu.graph.call_arguments import axis_of, pair, refuse, shape_of
from mmdet_bpu.graph.canonical_indexing import reshaped, sliced, taken


def _permuted(b, x: str, dims) -> str:
    shape = b.info(x).shape
    return b.op('permute', [x], tuple(shape[d] for d in dims), last=False, dims=list(dims))


def _blocks(b, x: str, kernel) -> str:
    """(N, C, H, W) cut in windows that do not overlap: (N, C, KH, KW, H / KH, W / KW)."""
    batch, channels, height, width = b.info(x).shape
    kh, kw = kernel
    x = reshaped(b, x, (batch, channels, height // kh, kh, width // kw, kw))
    return _permuted(b, x, (0, 1, 3, 5, 2, 4))


def unfold(b, node, args, kwargs):
    """``F.unfold``: windows side by side, as (N, C * KH * KW, windows)."""
    if len(args) == 4:
        return _unfold_dim(b, node, args)
    p = {**dict(zip(('input', 'kernel_size', 'dilation', 'padding', 'stride'), args)), **kwargs}
    x = b.value(p['input'])
    kernel, stride = pair(p['kernel_size']), pair(p.get('stride', 1))
    dilation, padding = pair(p.get('dilation', 1)), pair(p.get('padding', 0))
    if len(b.info(x).shape) != 4:
        refuse(node, 'unfolding of other than (N, C, H, W)')
    if any(padding):
        x = padded(b, x, [0, 0, *padding], [0, 0, *padding])
    batch, channels, *size = b.info(x).shape
    counts = [(n - d * (k - 1) - 1) // s + 1
              for n, k, s, d in zip(size, kernel, stride, dilation)]
    if kernel == stride and dilation == [1, 1]:
        for dim, (count, k) in enumerate(zip(counts, kernel)):
            x = sliced(b, x, dim + 2, 0, count * k)
        x = _blocks(b, x, kernel)
    else:
        parts = []
        for i in range(kernel[0]):
            rows = sliced(b, x, 2, i * dilation[0], i * dilation[0] + (counts[0] - 1) * stride[0] + 1,
                          stride[0])
            parts += [sliced(b, rows, 3, j * dilation[1],
                             j * dilation[1] + (counts[1] - 1) * stride[1] + 1, stride[1])
                      for j in range(kernel[1])]
        x = b.op('stack', parts, (batch, channels, len(parts), *counts), last=False, dim=2)
    return reshaped(b, x, shape_of(node), last=True)


def _unfold_dim(b, node, args):
    """``Tensor.unfold``: windows that do not overlap along one dimension."""
    x, (dim, size, step) = b.value(args[0]), args[1:]
    shape = list(b.info(x).shape)
    dim = axis_of(dim, len(shape))
    if size != step:
        refuse(node, 'windows that overlap or leave gaps')
    count = shape[dim] // size
    x = sliced(b, x, dim, 0, count * size)
    x = reshaped(b, x, (*shape[:dim], count, size, *shape[dim + 1:]))
    order = [d for d in range(len(shape) + 1) if d != dim + 1]
    return b.op('permute', [x], shape_of(node), dims=[*order, dim + 1])


def pixel_shuffle(b, node, args, kwargs):
    """(..., C * r * r, H, W) -> (..., C, H * r, W * r)."""
    x, r = b.value(args[0]), int(kwargs.get('upscale_factor', args[1] if len(args) > 1 else 0))
    *lead, channels, height, width = b.info(x).shape
    x = reshaped(b, x, (*lead, channels // r**2, r, r, height, width))
    n = len(lead)
    x = _permuted(b, x, (*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return reshaped(b, x, shape_of(node), last=True)


def pixel_unshuffle(b, node, args, kwargs):
    """(..., C, H * r, W * r) -> (..., C * r * r, H, W)."""
    x, r = b.value(args[0]), int(kwargs.get('downscale_factor', args[1] if len(args) > 1 else 0))
    *lead, channels, height, width = b.info(x).shape
    x = reshaped(b, x, (*lead, channels, height // r, r, width // r, r))
    n = len(lead)
    x = _permuted(b, x, (*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return reshaped(b, x, shape_of(node), last=True)


def channel_shuffle(b, node, args, kwargs):
    """Channels of ``groups`` groups dealt out in turn."""
    x, groups = b.value(args[0]), int(kwargs.get('groups', args[1] if len(args) > 1 else 0))
    batch, channels, *size = b.info(x).shape
    x = reshaped(b, x, (batch, groups, channels // groups, *size))
    x = _permuted(b, x, (0, 2, 1, *range(3, 3 + len(size))))
    return reshaped(b, x, shape_of(node), last=True)


def repeat_interleave(b, node, args, kwargs):
    """Every element along a dimension a constant number of times."""
    p = {**dict(zip(('input', 'repeats', 'dim'), args)), **kwargs}
    x, repeats = b.value(p['input']), p['repeats']
    if p.get('dim') is None:
        x = reshaped(b, x, (math.prod(b.info(x).shape), ))
    shape = b.info(x).shape
    dim = axis_of(p.get('dim') or 0, len(shape))
    if isinstance(repeats, fx.Node):
        data = b.info(b.value(repeats)).data
        if data is None:
            refuse(node, 'a number of repetitions that depends on the image')
        data = data.expand(shape[dim])
        return taken(b, x, dim, torch.arange(shape[dim]).repeat_interleave(data).tolist())
    x = reshaped(b, x, (*shape[:dim + 1], 1, *shape[dim + 1:]))
    tiled = (*shape[:dim + 1], repeats, *shape[dim + 1:])
    x = b.op('expand', [x], tiled, last=False)
    return reshaped(b, x, shape_of(node), last=True)


def _listed(value) -> list:
    return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)]


def roll(b, node, args, kwargs):
    """Elements that leave at one end come in at the other."""
    p = {**dict(zip(('input', 'shifts', 'dims'), args)), **kwargs}
    x, shifts = b.value(p['input']), _listed(p['shifts'])
    dims = p.get('dims')
    whole = dims is None or dims == ()
    if whole:
        x, dims = reshaped(b, x, (math.prod(b.info(x).shape), )), [0]
    shape = b.info(x).shape
    dims = [axis_of(d, len(shape)) for d in _listed(dims)]
    total: dict = {}
    for dim, shift in zip(dims, shifts):
        total[dim] = (total.get(dim, 0) + shift) % shape[dim]
    total = {dim: shift for dim, shift in total.items() if shift}
    if total:
        x = b.op('roll', [x], shape, last=not whole, shifts=list(total.values()),
                 dims=list(total))
    return reshaped(b, x, shape_of(node), last=True)


def flip(b, node, args, kwargs):
    """Order of elements reversed along dimensions."""
    x = b.value(args[0])
    dims = kwargs.get('dims', args[1:] if len(args) > 2 or isinstance(args[1], int) else args[1])
    rank = len(b.info(x).shape)
    dims = sorted({axis_of(d, rank) for d in _listed(dims)})
    return b.op('flip', [x], shape_of(node), dims=dims) if dims else x


def padded(b, x: str, begin: list, end: list, fill: float = 0.0, last: bool = False) -> str:
    """A constant border; a negative width cuts off."""
    for dim, (before, after) in enumerate(zip(begin, end)):
        size = b.info(x).shape[dim]
        x = sliced(b, x, dim, max(-before, 0), size - max(-after, 0))
    begin, end = ([max(n, 0) for n in side] for side in (begin, end))
    if not any((*begin, *end)):
        return x
    shape = [n + before + after for n, before, after in zip(b.info(x).shape, begin, end)]
    return b.op('pad', [x], tuple(shape), last=last, begin=begin, end=end, fill=fill)


def pad(b, node, args, kwargs):
    """``F.pad`` with a constant; pairs of widths from the last dimension on."""
    p = {**dict(zip(('input', 'pad', 'mode', 'value'), args)), **kwargs}
    if p.get('mode', 'constant') != 'constant':
        refuse(node, f'padding of mode {p["mode"]!r}; only constants can be padded')
    x, sides = b.value(p['input']), [int(n) for n in p['pad']]
    kept = [0] * (len(b.info(x).shape) - len(sides) // 2)
    begin, end = kept + sides[::2][::-1], kept + sides[1::2][::-1]
    return padded(b, x, begin, end, float(p.get('value') or 0.0), last=True)
