"""Translation of captured data movement: views, slices, joins and splits."""
import math

from torch import fx

from mmdet_bpu.graph.call_arguments import axis_of, expanded, refuse, shape_of
from mmdet_bpu.graph.canonical_indexing import joined, reshaped, sliced
from mmdet_bpu.graph.canonical_masks import is_mask


def reshape(b, node, args, kwargs):
    return b.op('reshape', [b.value(args[0])], shape_of(node))


def transpose(b, node, args, kwargs):
    x = b.value(args[0])
    rank = len(b.info(x).shape)
    d0, d1 = [axis_of(kwargs.get(n, a), rank) for n, a in zip(('dim0', 'dim1'), args[1:3] or (0, 1))]
    dims = list(range(rank))
    dims[d0], dims[d1] = dims[d1], dims[d0]
    return b.op('permute', [x], shape_of(node), dims=dims)


def permute(b, node, args, kwargs):
    x = b.value(args[0])
    dims = kwargs.get('dims', args[1] if isinstance(args[1], (tuple, list)) else args[1:])
    rank = len(b.info(x).shape)
    return b.op('permute', [x], shape_of(node), dims=[axis_of(d, rank) for d in dims])


def movedim(b, node, args, kwargs):
    p = {**dict(zip(('input', 'source', 'destination'), args)), **kwargs}
    x = b.value(p['input'])
    rank = len(b.info(x).shape)
    source, target = ([axis_of(d, rank) for d in (v if isinstance(v, (tuple, list)) else (v, ))]
                      for v in (p['source'], p['destination']))
    rest = iter(d for d in range(rank) if d not in source)
    dims = [source[target.index(d)] if d in target else next(rest) for d in range(rank)]
    return b.op('permute', [x], shape_of(node), dims=dims)


def matrix_transpose(b, node, args, kwargs):
    """``x.T`` of a matrix and ``x.mT``: the last two dimensions change places."""
    x = b.value(args[0])
    rank = len(b.info(x).shape)
    dims = [*range(rank - 2), rank - 1, rank - 2]
    return b.op('permute', [x], shape_of(node), dims=dims)


def identity(b, node, args, kwargs):
    return b.value(args[0])


def expand(b, node, args, kwargs):
    x = b.value(args[0])
    return x if is_mask(b, x) else expanded(b, node, x)  # masks are broadcast by what reads them


def tile(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    target = shape_of(node)
    if len(target) != len(shape):
        x = b.op('reshape', [x], (1, ) * (len(target) - len(shape)) + shape, last=False)
        shape = b.info(x).shape
    return b.op('tile', [x], target, multiples=[t // s for t, s in zip(target, shape)])


def split(b, node, args, kwargs):
    x = b.value(args[0])
    size = kwargs.get('split_size_or_sections', kwargs.get('split_size', kwargs.get('split_sizes')))
    size = args[1] if size is None else size
    dim = axis_of(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    total = b.info(x).shape[dim]
    sizes = [size] * math.ceil(total / size) if isinstance(size, int) else list(size)
    _cut(b, node, x, dim, [sum(sizes[:i]) for i in range(1, len(sizes))])


def _cut(b, node, x: str, dim: int, places: list) -> None:
    """Parts between ``places`` along ``dim``, made as they are read."""
    bounds = [0, *places, b.info(x).shape[dim]]
    b.parts[node.name] = lambda i: sliced(b, x, dim, bounds[i], bounds[i + 1])


def chunk(b, node, args, kwargs):
    x = b.value(args[0])
    count = kwargs.get('chunks', args[1] if len(args) > 1 else None)
    dim = axis_of(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    size = math.ceil(b.info(x).shape[dim] / count)
    split(b, node, [args[0], size, dim], {})


def tensor_split(b, node, args, kwargs):
    """Like chunk, but the first parts are larger by one; or cut before given indices."""
    p = {**dict(zip(('input', 'sections', 'dim'), args)), **kwargs}
    x, sections = b.value(p['input']), p.get('sections', p.get('indices'))
    dim = axis_of(p.get('dim', 0), len(b.info(x).shape))
    if isinstance(sections, fx.Node):
        refuse(node, 'places to cut at that are a tensor')
    total = b.info(x).shape[dim]
    if isinstance(sections, int):
        sections = [i * (total // sections) + min(i, total % sections)
                    for i in range(1, sections)]
    _cut(b, node, x, dim, [min(max(i + total if i < 0 else i, 0), total) for i in sections])


def unbind(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    rest = shape[:dim] + shape[dim + 1:]
    b.parts[node.name] = lambda i: b.op('reshape', [sliced(b, x, dim, i, i + 1)], rest, last=False)


def concat(b, node, args, kwargs):
    names = [b.value(n) for n in args[0]]
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape_of(node)))
    if len(names) == 1:
        return names[0]
    return b.op('concat', names, shape_of(node), dim=dim)


def stack(b, node, args, kwargs):
    shape = shape_of(node)
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    names = [b.value(n) for n in args[0]]
    if not any(b.info(name).is_constant for name in names):
        return b.op('stack', names, shape, dim=dim)
    one = shape[:dim] + (1, ) + shape[dim + 1:]
    return joined(b, [reshaped(b, name, one) for name in names], dim, last=True)
