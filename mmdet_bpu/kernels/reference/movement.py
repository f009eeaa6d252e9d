"""Data movement: ops that copy elements and never change them."""
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel

Tensors = list[torch.Tensor]


@kernel('bpu.reshape')
def reshape(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.reshape: same elements in row-major order, another shape."""
    return [inputs[0].reshape(tuple(attrs['shape']))]


@kernel('bpu.transpose')
def transpose(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.transpose: result dim i is input dim dims[i]."""
    return [inputs[0].permute(tuple(attrs['dims'])).contiguous()]


@kernel('bpu.slice')
def slice_(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.slice: begin (inclusive), end (exclusive) and positive step per dim."""
    index = tuple(map(slice, *(map(int, attrs[key]) for key in ('begin', 'end', 'step'))))
    return [inputs[0][index].contiguous()]


@kernel('bpu.concat')
def concat(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.concat: along dim."""
    return [torch.cat(inputs, attrs['dim'])]


@kernel('bpu.tile')
def tile(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.tile: repeated multiples[i] times along dim i."""
    return [inputs[0].repeat(tuple(attrs['multiples']))]


@kernel('bpu.pad')
def pad(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.pad: begin[i] and end[i] elements of ``value`` around dim i."""
    x, begin, end = inputs[0], attrs['begin'], attrs['end']
    shape = [b + n + e for b, n, e in zip(begin, x.shape, end)]
    out = x.new_full(shape, attrs['value'])
    out[tuple(slice(b, b + n) for b, n in zip(begin, x.shape))] = x
    return [out]


@kernel('bpu.flip')
def flip(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.flip: order reversed along dims."""
    return [inputs[0].flip(tuple(attrs['dims']))]


@kernel('bpu.roll')
def roll(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.roll: element i of dim d goes to i + shift, around the end."""
    return [inputs[0].roll(tuple(attrs['shifts']), tuple(attrs['dims']))]


@kernel('bpu.gather')
def gather(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.gather: torch.gather's semantics, si32 indices.

    Raises:
        BpuError: for an index outside the dimension.
    """
    source, indices = inputs
    size = source.shape[attrs['dim']]
    if indices.numel() and not 0 <= indices.min() <= indices.max() < size:
        raise BpuError(f'bpu.gather: indices {int(indices.min())} to {int(indices.max())} leave '
                       f'[0, {size - 1}]')
    return [source.gather(attrs['dim'], indices.to(torch.int64))]


@kernel('bpu.positive')
def positive(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.positive: a mask (i1) of the integers above 0."""
    return [inputs[0] > 0]


@kernel('bpu.not_negative')
def not_negative(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.not_negative: a mask (i1) of the integers that are 0 or above."""
    return [inputs[0] >= 0]


@kernel('bpu.where')
def where(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.where: ``fill`` or ``other`` where the mask (i1, broadcast) is set, the input elsewhere."""
    mask, source, *other = inputs
    if other:
        return [torch.where(mask, other[0], source)]
    shape = torch.broadcast_shapes(mask.shape, source.shape)
    return [source.expand(shape).masked_fill(mask, attrs['fill'])]
