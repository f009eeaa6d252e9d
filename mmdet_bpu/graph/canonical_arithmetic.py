"""Translation of captured products, elementwise functions and reductions."""
from typing import Optional

import torch
from torch import fx

from mmdet_bpu.graph.call_arguments import (Handler, axis_of, expanded, pair, refuse, scalar_of,
                                            shape_of)
from mmdet_bpu.graph.opgraph import GraphBuilder
from mmdet_bpu.program.functions import Function


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


def conv2d(b, node, args, kwargs):
    names = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
    p = {**dict(zip(names, args)), **kwargs}
    if isinstance(p.get('padding'), str):
        refuse(node, f'padding {p["padding"]!r}; give it in px')
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    return b.op('conv2d', inputs, shape_of(node), stride=pair(p.get('stride', 1)),
                padding=pair(p.get('padding', 0)) * 2, dilation=pair(p.get('dilation', 1)),
                groups=int(p.get('groups', 1)))


def conv_transpose2d(b, node, args, kwargs):
    """Rows and columns of ``output_padding`` are padding left out behind."""
    names = ('input', 'weight', 'bias', 'stride', 'padding', 'output_padding', 'groups', 'dilation')
    p = {**dict(zip(names, args)), **kwargs}
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    padding = pair(p.get('padding', 0))
    behind = [n - extra for n, extra in zip(padding, pair(p.get('output_padding', 0)))]
    return b.op('conv_transpose2d', inputs, shape_of(node), stride=pair(p.get('stride', 1)),
                padding=[*padding, *behind], dilation=pair(p.get('dilation', 1)),
                groups=int(p.get('groups', 1)))


def batch_norm(b, node, args, kwargs):
    """A batch norm that no convolution took in: a depthwise convolution of 1 x 1.

    weight = gamma / sqrt(var + eps), bias = beta - mean * weight. Its weights lie on their grid by
    themselves: with a scale per channel each of them is the largest integer.
    """
    names = ('input', 'running_mean', 'running_var', 'weight', 'bias', 'training', 'momentum', 'eps')
    p = {**dict(zip(names, args)), **kwargs}
    shape = shape_of(node)
    if len(shape) != 4 or p.get('running_mean') is None or p.get('training'):
        refuse(node, 'only a batch norm of (N, C, H, W) with frozen statistics')
    statistics = {name: b.info(b.value(p[name])) for name in names[1:5] if p.get(name) is not None}
    data = {name: info.data.double() for name, info in statistics.items()}
    scale = torch.rsqrt(data['running_var'] + p.get('eps', 1e-5))
    scale = scale * data.get('weight', torch.ones_like(scale))
    shift = data.get('bias', torch.zeros_like(scale)) - data['running_mean'] * scale
    constants = [b.constant(value.float(), learned=True)
                 for value in (scale.view(-1, 1, 1, 1), shift)]
    name = b.op('conv2d', [b.value(p['input']), *constants], shape, stride=[1, 1],
                padding=[0] * 4, dilation=[1, 1], groups=shape[1])
    b.graph.ops[-1].opened = (*node.meta.get('opened', ()), 'batch_norm')
    return name


def deform_conv2d(b, node, args, kwargs):
    """:func:`mmdet_bpu.models.deform_conv2d.deform_conv2d`; a bias of zeros where it has none."""
    p = {**dict(zip(('input', 'offset', 'weight', 'mask', 'bias'), args)), **kwargs}
    weight = b.value(p['weight'])
    if p.get('bias') is None:
        bias = b.constant(torch.zeros(b.info(weight).shape[0], dtype=b.info(weight).dtype))
    else:
        bias = b.value(p['bias'])
    if not (b.info(weight).is_constant and b.info(bias).is_constant):
        refuse(node, 'its weight or bias depends on the image')
    inputs = [b.value(p['input']), weight, bias, b.value(p['offset'])]
    if p.get('mask') is not None:
        inputs.append(b.value(p['mask']))
    return b.op('deform_conv2d', inputs, shape_of(node), stride=pair(p['stride']),
                padding=pair(p['padding']) * 2, dilation=pair(p['dilation']),
                groups=int(p['groups']), offset_groups=int(p['offset_groups']))


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


def extreme(reduction: str, elementwise: str) -> Handler:
    """max or min: of all elements, along a dimension (its values), or of two tensors."""

    def handler(b, node, args, kwargs):
        p = {**dict(zip(('input', 'dim', 'keepdim'), args)), **kwargs}
        other = p.get('other', p.get('dim'))
        if isinstance(other, fx.Node):
            return binary(elementwise)(b, node, [p['input'], other], {})
        if other is None:
            return reduce(reduction)(b, node, [p['input']], {})
        x = b.value(p['input'])
        shape = b.info(x).shape
        dim = axis_of(other, len(shape))
        rest = shape[:dim] + ((1, ) if p.get('keepdim') else ()) + shape[dim + 1:]

        def part(index: int) -> Optional[str]:
            if index:
                if b.node.users:
                    refuse(node, 'the positions of extremes have no integer form')
                return None
            kept = shape[:dim] + (1, ) + shape[dim + 1:]
            name = b.op(reduction, [x], kept, last=False, dims=[dim])
            return name if kept == rest else b.op('reshape', [name], rest, last=False)

        b.parts[node.name] = part

    return handler
