"""Translation of captured data movement: views, slices, joins and splits."""
import math

from torch import fx

from mmdet_bpu.graph.call_arguments import axis_of, expanded, refuse, shape_of
from mmdet_bpu.graph.opgraph import GraphBuilder


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


def identity(b, node, args, kwargs):
    return b.value(args[0])


def expand(b, node, args, kwargs):
    return expanded(b, node, b.value(args[0]))


def tile(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    target = shape_of(node)
    if len(target) != len(shape):
        x = b.op('reshape', [x], (1, ) * (len(target) - len(shape)) + shape, last=False)
        shape = b.info(x).shape
    return b.op('tile', [x], target, multiples=[t // s for t, s in zip(target, shape)])


def _slice(b: GraphBuilder, x: str, dim: int, begin: int, end: int, step: int = 1) -> str:
    shape = list(b.info(x).shape)
    if (begin, end, step) == (0, shape[dim], 1):
        return x
    shape[dim] = len(range(begin, end, step))
    return b.op('slice', [x], tuple(shape), last=False, dim=dim, begin=begin, end=end, step=step)


def index(b, node, args, kwargs):
    """``x[...]`` with integers, slices, None and Ellipsis."""
    x = b.value(args[0])
    index = args[1] if isinstance(args[1], tuple) else (args[1], )
    if any(not (i is None or i is Ellipsis or isinstance(i, (int, slice))) for i in index):
        refuse(node, 'indexing with a tensor or a list')
    rank = len(b.info(x).shape)
    used = sum(i is not None and i is not Ellipsis for i in index)
    position = index.index(Ellipsis) if Ellipsis in index else len(index)
    index = index[:position] + (slice(None), ) * (rank - used) + index[position + 1:]
    dim = 0
    for i in (i for i in index if i is not None):
        size = b.info(x).shape[dim]
        if isinstance(i, int):
            i = i + size if i < 0 else i
            x = _slice(b, x, dim, i, i + 1)
        else:
            x = _slice(b, x, dim, *i.indices(size))
        dim += 1
    if b.info(x).shape != shape_of(node):
        x = b.op('reshape', [x], shape_of(node))
    return x


def set_item(b, node, args, kwargs):
    """``x[..., a:b] = value``: the parts of the last dimension put together."""
    x, value = b.value(args[0]), args[2]
    index = args[1] if isinstance(args[1], tuple) else (args[1], )
    shape = b.info(x).shape
    whole = all(i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in index[:-1])
    if not whole or not isinstance(index[-1], slice) or not isinstance(value, fx.Node) \
            or (Ellipsis not in index and len(index) != len(shape)):
        refuse(node, 'only x[..., a:b] = tensor has an integer form')
    dim = len(shape) - 1
    begin, end, step = index[-1].indices(shape[dim])
    if step != 1:
        refuse(node, 'a step in an assignment')
    parts = [_slice(b, x, dim, 0, begin)] if begin else []
    parts.append(b.value(value))
    parts += [_slice(b, x, dim, end, shape[dim])] if end < shape[dim] else []
    return b.op('concat', parts, shape, dim=dim) if len(parts) > 1 else parts[0]


def split(b, node, args, kwargs):
    x = b.value(args[0])
    size = kwargs.get('split_size_or_sections', kwargs.get('split_size', args[1]))
    dim = axis_of(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    total = b.info(x).shape[dim]
    sizes = [size] * math.ceil(total / size) if isinstance(size, int) else list(size)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    b.parts[node.name] = lambda i: _slice(b, x, dim, starts[i], min(starts[i] + sizes[i], total))


def chunk(b, node, args, kwargs):
    x = b.value(args[0])
    count = kwargs.get('chunks', args[1])
    dim = axis_of(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    size = math.ceil(b.info(x).shape[dim] / count)
    split(b, node, [args[0], size, dim], {})


def unbind(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    rest = shape[:dim] + shape[dim + 1:]
    b.parts[node.name] = lambda i: b.op('reshape', [_slice(b, x, dim, i, i + 1)], rest, last=False)


def concat(b, node, args, kwargs):
    names = [b.value(n) for n in args[0]]
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape_of(node)))
    if len(names) == 1:
        return names[0]
    return b.op('concat', names, shape_of(node), dim=dim)


def stack(b, node, args, kwargs):
    shape = shape_of(node)
    dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    return b.op('stack', [b.value(n) for n in args[0]], shape, dim=dim)
