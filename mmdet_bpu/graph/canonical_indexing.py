"""Translation of captured indexing: slices, constant indices, and assignment to a part."""
import math
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import fx

from mmdet_bpu.graph.call_arguments import axis_of, expanded, refuse, scalar_of, shape_of
from mmdet_bpu.graph.canonical_masks import choice, chosen_number, is_mask
from mmdet_bpu.graph.opgraph import GraphBuilder

Range = Tuple[int, int, int]
"""Begin, end and step along one dimension."""
MOST_SLICES = 16
"""An index list of more runs than this is gathered, not joined from slices."""


def sliced(b: GraphBuilder, x: str, dim: int, begin: int, end: int, step: int = 1) -> str:
    """A part along one dimension; of a constant, a constant."""
    info = b.info(x)
    shape = list(info.shape)
    if (begin, end, step) == (0, shape[dim], 1):
        return x
    if info.is_constant:
        index = (slice(None), ) * dim + (slice(begin, end, step), )
        return b.constant(info.data[index], info.learned, origin=x)
    shape[dim] = len(range(begin, end, step))
    return b.op('slice', [x], tuple(shape), last=False, dim=dim, begin=begin, end=end, step=step)


def reshaped(b: GraphBuilder, x: str, shape: Sequence[int], last: bool = False) -> str:
    """The same elements in another shape; of a constant, a constant."""
    info = b.info(x)
    if tuple(info.shape) == tuple(shape):
        return x
    if info.is_constant:
        return b.constant(info.data.reshape(tuple(shape)), info.learned, origin=x)
    return b.op('reshape', [x], tuple(shape), last=last)


def joined(b: GraphBuilder, parts: List[str], dim: int, last: bool = False) -> str:
    """Parts one after the other along ``dim``."""
    if len(parts) == 1:
        return parts[0]
    shape = list(b.info(parts[0]).shape)
    shape[dim] = sum(b.info(part).shape[dim] for part in parts)
    return b.op('concat', parts, tuple(shape), last=last, dim=dim)


def _runs(indices: Sequence[int]) -> List[Range]:
    """``indices`` as slices, in order."""
    runs: List[Range] = []
    start = 0
    while start < len(indices):
        end, step = start + 1, 1
        if end < len(indices) and indices[end] > indices[start]:
            step = indices[end] - indices[start]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        runs.append((indices[start], indices[end - 1] + 1, step))
        start = end
    return runs


def taken(b: GraphBuilder, x: str, dim: int, indices: Sequence[int]) -> str:
    """``index_select`` with constant indices: a reversal, slices, or a gather."""
    shape = b.info(x).shape
    indices = [i + shape[dim] if i < 0 else i for i in indices]
    if len(indices) > 1 and indices == list(range(shape[dim]))[::-1]:
        return b.op('flip', [x], shape, last=False, dims=[dim])
    runs = _runs(indices)
    if len(runs) <= MOST_SLICES:
        return joined(b, [sliced(b, x, dim, *run) for run in runs], dim)
    target = (*shape[:dim], len(indices), *shape[dim + 1:])
    place = torch.tensor(indices).view(-1, *(1, ) * (len(shape) - dim - 1))
    return b.op('gather', [x, b.constant(place.expand(target).contiguous())], target, last=False,
                dim=dim)


def _constant_index(b: GraphBuilder, node: fx.Node, entry: Any) -> Any:
    """An index as it is, but a list as a tensor and a constant of no dimensions as an int."""
    if isinstance(entry, (list, tuple)):
        if not all(isinstance(i, (int, bool)) for i in entry):
            refuse(node, 'indexing with a list of other things than integers')
        return torch.tensor(entry)
    if not isinstance(entry, fx.Node):
        return entry
    info = b.info(b.value(entry))
    if not info.is_constant:
        refuse(node, 'indexing with a tensor that depends on the image')
    return int(info.data) if info.data.dim() == 0 and info.data.dtype != torch.bool else info.data


def _entries(b: GraphBuilder, node: fx.Node, index: Any, rank: int) -> List[Any]:
    """One entry per dimension and one per None: int, slice or constant tensor."""
    index = index if isinstance(index, tuple) else (index, )
    index = [_constant_index(b, node, entry) for entry in index]
    used = sum(entry is not None and entry is not Ellipsis for entry in index)
    dots = [i for i, entry in enumerate(index) if entry is Ellipsis]
    position = dots[0] if dots else len(index)
    return index[:position] + [slice(None)] * (rank - used) + index[position + 1:]


def index(b, node, args, kwargs):
    """``x[...]`` with integers, slices, None, Ellipsis and one constant list or tensor."""
    x = b.value(args[0])
    lists = 0
    dim = 0
    for entry in _entries(b, node, args[1], len(b.info(x).shape)):
        if entry is None:
            continue
        size = b.info(x).shape[dim]
        if isinstance(entry, torch.Tensor):
            lists += 1
            if lists > 1:
                refuse(node, 'indexing with more than one tensor or list')
            if entry.dtype == torch.bool:
                if entry.dim() != 1:
                    refuse(node, 'indexing with a mask of several dimensions')
                entry = entry.nonzero()
            x = taken(b, x, dim, entry.flatten().tolist())
        elif isinstance(entry, int):
            entry = entry + size if entry < 0 else entry
            x = sliced(b, x, dim, entry, entry + 1)
        else:
            x = sliced(b, x, dim, *entry.indices(size))
        dim += 1
    return reshaped(b, x, shape_of(node), last=True)


def index_select(b, node, args, kwargs):
    p = {**dict(zip(('input', 'dim', 'index'), args)), **kwargs}
    x = b.value(p['input'])
    indices = _constant_index(b, node, p['index'])
    indices = [indices] if isinstance(indices, int) else indices.tolist()
    return taken(b, x, axis_of(p['dim'], len(b.info(x).shape)), indices)


def narrow(b, node, args, kwargs):
    p = {**dict(zip(('input', 'dim', 'start', 'length'), args)), **kwargs}
    x = b.value(p['input'])
    dim = axis_of(p['dim'], len(b.info(x).shape))
    start = p['start'] + b.info(x).shape[dim] if p['start'] < 0 else p['start']
    return sliced(b, x, dim, start, start + p['length'])


def select(b, node, args, kwargs):
    p = {**dict(zip(('input', 'dim', 'index'), args)), **kwargs}
    x = b.value(p['input'])
    dim = axis_of(p['dim'], len(b.info(x).shape))
    i = p['index'] + b.info(x).shape[dim] if p['index'] < 0 else p['index']
    return reshaped(b, sliced(b, x, dim, i, i + 1), shape_of(node), last=True)


def _region(b: GraphBuilder, node: fx.Node, index: Any, shape: Sequence[int]) -> List[Range]:
    """The part that an assignment writes, one range per dimension."""
    entries = _entries(b, node, index, len(shape))
    if any(not isinstance(entry, (int, slice)) for entry in entries):
        refuse(node, 'an assignment to a part that is given by a tensor or by None')
    region = []
    for entry, size in zip(entries, shape):
        if isinstance(entry, int):
            entry = entry + size if entry < 0 else entry
            region.append((entry, entry + 1, 1))
        else:
            region.append(entry.indices(size))
    return region


def _mask(region: List[Range], shape: Sequence[int]) -> torch.Tensor:
    """True inside a region; dimensions that it covers have size 1."""
    full = [tuple(r) == (0, size, 1) for r, size in zip(region, shape)]
    mask = torch.zeros([1 if f else size for f, size in zip(full, shape)], dtype=torch.bool)
    mask[tuple(slice(None) if f else slice(*r) for f, r in zip(full, region))] = True
    return mask


def _assigned(b: GraphBuilder, x: str, region: List[Range], value: str, dim: int = 0) -> str:
    """``x`` with a contiguous part replaced, from slices of ``x`` around it."""
    shape = b.info(x).shape
    while dim < len(shape) and tuple(region[dim]) == (0, shape[dim], 1):
        dim += 1
    if dim == len(shape):
        return value
    begin, end, _ = region[dim]
    inner = _assigned(b, sliced(b, x, dim, begin, end),
                      [(0, end - begin, 1) if d == dim else r for d, r in enumerate(region)],
                      value, dim + 1)
    parts = [sliced(b, x, dim, 0, begin)] if begin else []
    parts.append(inner)
    parts += [sliced(b, x, dim, end, shape[dim])] if end < shape[dim] else []
    return joined(b, parts, dim)


def _mask_of(b: GraphBuilder, index: Any, shape: Sequence[int]) -> Optional[torch.Tensor]:
    """The constant mask of ``x[mask] = number``, broadcastable to x, or None."""
    if not isinstance(index, fx.Node):
        return None
    mask = b.info(b.value(index)).data
    if mask is None or mask.dtype != torch.bool:
        return None
    return mask.reshape(*mask.shape, *(1, ) * (len(shape) - mask.dim()))


def set_item(b, node, args, kwargs):
    """``x[...] = value`` with integers and slices, or ``x[constant mask] = number``."""
    x, value = b.value(args[0]), args[2]
    shape = b.info(x).shape
    number = value if isinstance(value, (int, float)) else scalar_of(b, value)
    mask = _mask_of(b, args[1], shape)
    if mask is None:
        region = _region(b, node, args[1], shape)
        mask = _mask(region, shape)
    elif number is None:
        refuse(node, 'an assignment of a tensor to a masked part')
    if number is not None:
        return b.op('where', [b.constant(mask), x], shape, dtype=b.info(x).dtype,
                    fill=float(number))
    if any(step != 1 for _, _, step in region):
        refuse(node, 'a step in an assignment of a tensor')
    part = [end - begin for begin, end, _ in region]
    found = b.info(b.value(value)).shape
    kept = [size for size, entry in zip(part, _entries(b, node, args[1], len(shape)))
            if not isinstance(entry, int)]
    value = b.value(value)
    if math.prod(found) != math.prod(part):  # broadcast to the part without its integers
        if len(found) < len(kept):
            value = reshaped(b, value, (1, ) * (len(kept) - len(found)) + tuple(found))
        value = b.constant(b.info(value).data.expand(kept), b.info(value).learned, origin=value) \
            if b.info(value).is_constant else b.op('expand', [value], tuple(kept), last=False)
    return _assigned(b, x, region, reshaped(b, value, part))


def masked_fill(b, node, args, kwargs):
    p = {**dict(zip(('input', 'mask', 'value'), args)), **kwargs}
    value = p['value'] if isinstance(p['value'], (int, float)) else scalar_of(b, p['value'])
    if value is None:
        refuse(node, 'the value is a tensor')
    return _filled(b, node, p['mask'], b.value(p['input']), float(value))


def _filled(b: GraphBuilder, node: fx.Node, mask: Any, x: str, fill: float,
            outside: bool = False) -> str:
    """A number inside (or outside) a mask."""
    name = b.value(mask)
    if is_mask(b, name):
        return chosen_number(b, node, name, x, fill, outside)
    data = b.info(name).data
    if data is None:
        refuse(node, 'the mask depends on the image and is no comparison')
    if data.dtype != torch.bool:
        refuse(node, f'a mask of {data.dtype}')
    x = expanded(b, node, x)
    return b.op('where', [b.constant(~data) if outside else name, x], shape_of(node),
                dtype=b.info(x).dtype, fill=fill)


def where(b, node, args, kwargs):
    """``torch.where(mask, x, y)`` and ``x.where(mask, y)``."""
    p = {**dict(zip(('condition', 'input', 'other'), args)), **kwargs}
    if isinstance(args[0], fx.Node) and b.info(b.value(args[0])).dtype != torch.bool:
        p = {**dict(zip(('input', 'condition', 'other'), args)), **kwargs}
    if 'other' not in p:
        refuse(node, 'the places where a mask is set')
    numbers = [scalar_of(b, p[name]) for name in ('input', 'other')]
    if None not in numbers:
        refuse(node, 'a choice between constants')
    if numbers[0] is not None:
        return _filled(b, node, p['condition'], b.value(p['other']), numbers[0])
    if numbers[1] is not None:
        return _filled(b, node, p['condition'], b.value(p['input']), numbers[1], outside=True)
    return choice(b, node, b.value(p['condition']), b.value(p['input']), b.value(p['other']))
