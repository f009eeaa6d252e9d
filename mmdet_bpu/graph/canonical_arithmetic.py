"""Translation of captured products, elementwise functions and reductions."""
from torch import fx

from mmdet_bpu.graph.call_arguments import Handler, axis_of, expanded, refuse, scalar_of, shape_of
from mmdet_bpu.graph.opgraph import GraphBuilder
from mmdet_bpu.program.functions import Function
from mmdet_bpu.program.kinds import KINDS


def unary(row: Function) -> Handler:
    """An elementwise function of :mod:`mmdet_bpu.program.functions`."""
    defaults = row.parameters or {}

    def handler(b, node, args, kwargs):
        if not isinstance(args[0], fx.Node):
            refuse(node, f'{row.name} of a number and a tensor')
        params = dict(zip(defaults, args[1:]))
        params.update({k: v for k, v in kwargs.items() if k in defaults})
        for name, value in params.items():
            if isinstance(value, fx.Node):
                params[name] = scalar_of(b, value)
                if params[name] is None:
                    refuse(node, f'{name} of {row.name} is a tensor')
        return b.op('unary', [b.value(args[0])], shape_of(node), fn=row.name,
                    **{**defaults, **params})

    return handler


def hardtanh(b, node, args, kwargs):
    """A clamp whose bounds have names of their own."""
    p = {**dict(zip(('input', 'min_val', 'max_val'), args)), **kwargs}
    return b.op('unary', [b.value(p['input'])], shape_of(node), fn='clamp',
                min=p.get('min_val', -1.0), max=p.get('max_val', 1.0))


def _without_copies(b: GraphBuilder, name: str) -> str:
    """An expanded constant as it was before: what the operation broadcasts needs no copies."""
    info = b.info(name)
    if not info.is_constant or not any(
            size > 1 and stride == 0 for size, stride in zip(info.shape, info.data.stride())):
        return name
    index = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in info.data.stride())
    return b.constant(info.data[index], info.learned, origin=name)


def binary(kind: str, swapped: bool = False) -> Handler:
    """add, sub, mul, div, maximum, minimum of two tensors, or of a tensor and a number."""

    def handler(b, node, args, kwargs):
        if kwargs.get('alpha', 1) != 1 or kwargs.get('rounding_mode') is not None:
            refuse(node, f'{kind} with alpha or rounding_mode')
        left, right = (args[1], args[0]) if swapped else (args[0], args[1])
        numbers = [scalar_of(b, left), scalar_of(b, right)]
        if numbers[0] is None and numbers[1] is None:
            names = [_without_copies(b, b.value(side)) for side in (left, right)]
            return b.op(kind, names, shape_of(node))
        tensor, number = (left, numbers[1]) if numbers[1] is not None else (right, numbers[0])
        x = expanded(b, node, b.value(tensor))
        first = numbers[1] is not None  # the tensor is the left operand
        if kind == 'mul' or (kind == 'div' and first):
            factor = number if kind == 'mul' else 1.0 / number
            if factor == 1.0:
                return x
            if factor > 0:
                return b.op('scale', [x], shape_of(node), factor=factor)
            return b.op('unary', [x], shape_of(node), fn='mul', value=factor)
        if kind in ('add', 'sub') and first:
            value = number if kind == 'add' else -number
            return x if value == 0 else b.op('unary', [x], shape_of(node), fn='add', value=value)
        if kind == 'add':
            return x if number == 0 else b.op('unary', [x], shape_of(node), fn='add', value=number)
        if kind in ('maximum', 'minimum'):
            bound = {'min': number} if kind == 'maximum' else {'max': number}
            return b.op('unary', [x], shape_of(node), fn='clamp', **bound)
        return b.op('unary', [x], shape_of(node), fn=f'r{kind}', value=number)  # number - x, number / x

    return handler


def extreme(kind: str, reduction: str) -> Handler:
    """``max``, ``min``: of two tensors, of all elements, or along a dimension."""

    def handler(b, node, args, kwargs):
        if 'other' in kwargs or (len(args) > 1 and isinstance(args[1], fx.Node)):
            other = kwargs['other'] if 'other' in kwargs else args[1]
            return binary(kind)(b, node, [args[0], other], {})
        if reduction not in KINDS:
            refuse(node, f'no integer form of {reduction}')
        if node.meta['shape'] is not None:
            return reduce(reduction)(b, node, args[:1], {})
        x = b.value(args[0])
        dim = axis_of(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(b.info(x).shape))
        keep = bool(kwargs.get('keepdim', args[2] if len(args) > 2 else False))

        def part(i: int) -> str:
            if i:
                if b.node.users:
                    refuse(node, f'the places of a {kind}')
                return x
            shape = b.info(x).shape
            kept = (*shape[:dim], 1, *shape[dim + 1:])
            name = b.op(reduction, [x], kept, last=False, dims=[dim])
            return name if keep else b.op('reshape', [name], shape[:dim] + shape[dim + 1:],
                                          last=False)

        b.parts[node.name] = part

    return handler


def conv2d(b, node, args, kwargs):
    names = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
    p = {**dict(zip(names, args)), **kwargs}

    def pair(value):
        return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)] * 2

    if isinstance(p.get('padding'), str):
        refuse(node, f'padding {p["padding"]!r}; give it in px')
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    return b.op('conv2d', inputs, shape_of(node), stride=pair(p.get('stride', 1)),
                padding=pair(p.get('padding', 0)) * 2, dilation=pair(p.get('dilation', 1)),
                groups=int(p.get('groups', 1)))


def linear(b, node, args, kwargs):
    p = {**dict(zip(('input', 'weight', 'bias'), args)), **kwargs}
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    return b.op('linear', inputs, shape_of(node))


def matmul(b, node, args, kwargs):
    return b.op('matmul', [b.value(args[0]), b.value(args[1])], shape_of(node))


def reduce(kind: str) -> Handler:

    def handler(b, node, args, kwargs):
        x = b.value(args[0])
        rank = len(b.info(x).shape)
        dims = kwargs.get('dim', args[1] if len(args) > 1 else None)
        keep = kwargs.get('keepdim', args[2] if len(args) > 2 else False)
        dims = list(range(rank)) if dims is None or dims == () else dims
        dims = [dims] if isinstance(dims, int) else list(dims)
        dims = sorted(axis_of(d, rank) for d in dims)
        kept = tuple(1 if i in dims else n for i, n in enumerate(b.info(x).shape))
        name = b.op(kind, [x], kept, dims=dims, last=bool(keep) or kept == shape_of(node))
        if kept == shape_of(node):
            return name
        # The captured call returned the squeezed tensor: the quantizer sits on the call.
        b.graph.ops[-1].key = node.meta.get('key')
        return b.op('reshape', [name], shape_of(node), last=False)

    return handler
