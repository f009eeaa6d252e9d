"""Translation of captured torch calls into the kinds of :mod:`mmdet_bpu.quantization.opgraph`.

One function per group of spellings; the table at the end maps names of torch functions to them.
"""
import math
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from torch import fx

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.capture import CapturedGraph
from mmdet_bpu.quantization.functional_forms import take_item
from mmdet_bpu.quantization.opgraph import GraphBuilder, OpGraph, ValueInfo
from mmdet_bpu.quantization.sites import function_name

Handler = Callable[[GraphBuilder, fx.Node, list, dict], Optional[str]]


def _axis(dim: int, rank: int) -> int:
    return dim + rank if dim < 0 else dim


def _refuse(node: fx.Node, why: str) -> None:
    raise BpuError(f'{node.meta.get("site", node.name)} cannot be lowered: {why}')


def _shape(node: fx.Node) -> Tuple[int, ...]:
    return node.meta['shape']


def _scalar(b: GraphBuilder, operand: Any) -> Optional[float]:
    """The number that an operand stands for, if it is one.

    A constant tensor counts when all its elements are equal and no training changes them.
    """
    if isinstance(operand, (int, float)):
        return float(operand)
    info = b.info(b.value(operand))
    if info.data is None or info.learned or info.data.dtype == torch.bool or not info.data.numel():
        return None
    first = info.data.flatten()[0]
    return float(first) if bool((info.data == first).all()) else None


def _unary(fn: str, *names: str) -> Handler:
    """An elementwise function; ``names`` are its scalar parameters in call order."""

    def handler(b, node, args, kwargs):
        params = dict(zip(names, args[1:]))
        params.update({k: v for k, v in kwargs.items() if k in names})
        return b.op('unary', [b.value(args[0])], _shape(node), fn=fn, **params)

    return handler


def _expanded(b: GraphBuilder, node: fx.Node, name: str) -> str:
    """``name`` broadcast to the node's shape, where it is smaller."""
    if b.info(name).shape == _shape(node):
        return name
    return b.op('expand', [name], _shape(node), last=False)


def _binary(kind: str, swapped: bool = False) -> Handler:
    """add, sub, mul, div, maximum, minimum of two tensors, or of a tensor and a number."""

    def handler(b, node, args, kwargs):
        if kwargs.get('alpha', 1) != 1 or kwargs.get('rounding_mode') is not None:
            _refuse(node, f'{kind} with alpha or rounding_mode')
        left, right = (args[1], args[0]) if swapped else (args[0], args[1])
        numbers = [_scalar(b, left), _scalar(b, right)]
        if numbers[0] is None and numbers[1] is None:
            return b.op(kind, [b.value(left), b.value(right)], _shape(node))
        tensor, number = (left, numbers[1]) if numbers[1] is not None else (right, numbers[0])
        x = _expanded(b, node, b.value(tensor))
        first = numbers[1] is not None  # the tensor is the left operand
        if kind == 'mul' or (kind == 'div' and first):
            factor = number if kind == 'mul' else 1.0 / number
            if factor == 1.0:
                return x
            if factor > 0:
                return b.op('scale', [x], _shape(node), factor=factor)
            return b.op('unary', [x], _shape(node), fn='mul', value=factor)
        if kind in ('add', 'sub') and first:
            value = number if kind == 'add' else -number
            return x if value == 0 else b.op('unary', [x], _shape(node), fn='add', value=value)
        if kind == 'add':
            return x if number == 0 else b.op('unary', [x], _shape(node), fn='add', value=number)
        if kind in ('maximum', 'minimum'):
            bound = {'min': number} if kind == 'maximum' else {'max': number}
            return b.op('unary', [x], _shape(node), fn='clamp', **bound)
        return b.op('unary', [x], _shape(node), fn=f'r{kind}', value=number)  # number - x, number / x

    return handler


def _conv2d(b, node, args, kwargs):
    names = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
    p = {**dict(zip(names, args)), **kwargs}

    def pair(value):
        return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)] * 2

    if isinstance(p.get('padding'), str):
        _refuse(node, f'padding {p["padding"]!r}; give it in px')
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    return b.op('conv2d', inputs, _shape(node), stride=pair(p.get('stride', 1)),
                padding=pair(p.get('padding', 0)) * 2, dilation=pair(p.get('dilation', 1)),
                groups=int(p.get('groups', 1)))


def _pad(b, node, args, kwargs):
    """Zeros around height and width; ``padding`` is top, left, bottom, right in px."""
    p = {**dict(zip(('input', 'pad', 'mode', 'value'), args)), **kwargs}
    sides = [int(n) for n in p['pad']]
    if p.get('mode', 'constant') != 'constant' or p.get('value') not in (None, 0) \
            or len(sides) > 4 or min(sides) < 0 or len(_shape(node)) != 4:
        _refuse(node, 'only zeros around height and width can be padded')
    left, right, top, bottom = (*sides, 0, 0)[:4]
    return b.op('pad', [b.value(p['input'])], _shape(node), padding=[top, left, bottom, right])


def _linear(b, node, args, kwargs):
    p = {**dict(zip(('input', 'weight', 'bias'), args)), **kwargs}
    inputs = [b.value(p[n]) for n in ('input', 'weight', 'bias') if p.get(n) is not None]
    return b.op('linear', inputs, _shape(node))


def _matmul(b, node, args, kwargs):
    return b.op('matmul', [b.value(args[0]), b.value(args[1])], _shape(node))


def _reduce(kind: str) -> Handler:

    def handler(b, node, args, kwargs):
        x = b.value(args[0])
        rank = len(b.info(x).shape)
        dims = kwargs.get('dim', args[1] if len(args) > 1 else None)
        keep = kwargs.get('keepdim', args[2] if len(args) > 2 else False)
        dims = list(range(rank)) if dims is None or dims == () else dims
        dims = [dims] if isinstance(dims, int) else list(dims)
        dims = sorted(_axis(d, rank) for d in dims)
        kept = tuple(1 if i in dims else n for i, n in enumerate(b.info(x).shape))
        name = b.op(kind, [x], kept, dims=dims, last=bool(keep) or kept == _shape(node))
        if kept == _shape(node):
            return name
        # The captured call returned the squeezed tensor: the quantizer sits on the call.
        b.graph.ops[-1].key = node.meta.get('key')
        return b.op('reshape', [name], _shape(node), last=False)

    return handler


def _reshape(b, node, args, kwargs):
    return b.op('reshape', [b.value(args[0])], _shape(node))


def _transpose(b, node, args, kwargs):
    x = b.value(args[0])
    rank = len(b.info(x).shape)
    d0, d1 = [_axis(kwargs.get(n, a), rank) for n, a in zip(('dim0', 'dim1'), args[1:3] or (0, 1))]
    dims = list(range(rank))
    dims[d0], dims[d1] = dims[d1], dims[d0]
    return b.op('permute', [x], _shape(node), dims=dims)


def _permute(b, node, args, kwargs):
    x = b.value(args[0])
    dims = kwargs.get('dims', args[1] if isinstance(args[1], (tuple, list)) else args[1:])
    rank = len(b.info(x).shape)
    return b.op('permute', [x], _shape(node), dims=[_axis(d, rank) for d in dims])


def _identity(b, node, args, kwargs):
    return b.value(args[0])


def _expand(b, node, args, kwargs):
    return _expanded(b, node, b.value(args[0]))


def _tile(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    target = _shape(node)
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


def _index(b, node, args, kwargs):
    """``x[...]`` with integers, slices, None and Ellipsis."""
    x = b.value(args[0])
    index = args[1] if isinstance(args[1], tuple) else (args[1], )
    if any(not (i is None or i is Ellipsis or isinstance(i, (int, slice))) for i in index):
        _refuse(node, 'indexing with a tensor or a list')
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
    if b.info(x).shape != _shape(node):
        x = b.op('reshape', [x], _shape(node))
    return x


def _set_item(b, node, args, kwargs):
    """``x[..., a:b] = value``: the parts of the last dimension put together."""
    x, value = b.value(args[0]), args[2]
    index = args[1] if isinstance(args[1], tuple) else (args[1], )
    shape = b.info(x).shape
    whole = all(i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in index[:-1])
    if not whole or not isinstance(index[-1], slice) or not isinstance(value, fx.Node) \
            or (Ellipsis not in index and len(index) != len(shape)):
        _refuse(node, 'only x[..., a:b] = tensor has an integer form')
    dim = len(shape) - 1
    begin, end, step = index[-1].indices(shape[dim])
    if step != 1:
        _refuse(node, 'a step in an assignment')
    parts = [_slice(b, x, dim, 0, begin)] if begin else []
    parts.append(b.value(value))
    parts += [_slice(b, x, dim, end, shape[dim])] if end < shape[dim] else []
    return b.op('concat', parts, shape, dim=dim) if len(parts) > 1 else parts[0]


def _split(b, node, args, kwargs):
    x = b.value(args[0])
    size = kwargs.get('split_size_or_sections', kwargs.get('split_size', args[1]))
    dim = _axis(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    total = b.info(x).shape[dim]
    sizes = [size] * math.ceil(total / size) if isinstance(size, int) else list(size)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    _parts(b, node, lambda i: _slice(b, x, dim, starts[i], min(starts[i] + sizes[i], total)))


def _chunk(b, node, args, kwargs):
    x = b.value(args[0])
    count = kwargs.get('chunks', args[1])
    dim = _axis(kwargs.get('dim', args[2] if len(args) > 2 else 0), len(b.info(x).shape))
    size = math.ceil(b.info(x).shape[dim] / count)
    _split(b, node, [args[0], size, dim], {})


def _unbind(b, node, args, kwargs):
    x = b.value(args[0])
    shape = b.info(x).shape
    dim = _axis(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    rest = shape[:dim] + shape[dim + 1:]
    _parts(b, node, lambda i: b.op('reshape', [_slice(b, x, dim, i, i + 1)], rest, last=False))


def _parts(b: GraphBuilder, node: fx.Node, part: Callable[[int], str]) -> None:
    b.parts[node.name] = part


def _concat(b, node, args, kwargs):
    names = [b.value(n) for n in args[0]]
    dim = _axis(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(_shape(node)))
    if len(names) == 1:
        return names[0]
    return b.op('concat', names, _shape(node), dim=dim)


def _stack(b, node, args, kwargs):
    shape = _shape(node)
    dim = _axis(kwargs.get('dim', args[1] if len(args) > 1 else 0), len(shape))
    return b.op('stack', [b.value(n) for n in args[0]], shape, dim=dim)


def _grid_sample(b, node, args, kwargs):
    names = ('input', 'grid', 'mode', 'padding_mode', 'align_corners')
    p = {**dict(zip(names, args)), **kwargs}
    if p.get('mode', 'bilinear') != 'bilinear' or p.get('padding_mode', 'zeros') not in (
            'zeros', 'border') or p.get('align_corners'):
        _refuse(node, 'only bilinear, zeros or border, align_corners=False')
    return b.op('grid_sample', [b.value(p['input']), b.value(p['grid'])], _shape(node),
                padding=p.get('padding_mode', 'zeros'))


def _max_pool2d(b, node, args, kwargs):
    names = ('input', 'kernel_size', 'stride', 'padding', 'dilation', 'ceil_mode')
    p = {**dict(zip(names, args)), **kwargs}

    def pair(value):
        return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)] * 2

    kernel = pair(p['kernel_size'])
    return b.op('max_pool2d', [b.value(p['input'])], _shape(node), kernel=kernel,
                stride=pair(p.get('stride') or kernel), padding=pair(p.get('padding', 0)),
                dilation=pair(p.get('dilation', 1)), ceil_mode=bool(p.get('ceil_mode', False)))


def _topk(b, node, args, kwargs):
    names = ('input', 'k', 'dim', 'largest', 'sorted')
    p = {**dict(zip(names, args)), **kwargs}
    if not p.get('largest', True):
        _refuse(node, 'top-k of the smallest')
    x = b.value(p['input'])
    shape = list(b.info(x).shape)
    dim = _axis(p.get('dim', -1), len(shape))
    shape[dim] = int(p['k'])

    def part(i: int) -> str:
        dtype = torch.int64 if i else b.info(x).dtype
        return b.op('topk', [x], tuple(shape), dtype=dtype, last=False, k=int(p['k']), dim=dim,
                    part=('values', 'indices')[i])

    _parts(b, node, part)


def _gather(b, node, args, kwargs):
    p = {**dict(zip(('input', 'dim', 'index'), args)), **kwargs}
    x = b.value(p['input'])
    return b.op('gather', [x, b.value(p['index'])], _shape(node),
                dim=_axis(p['dim'], len(b.info(x).shape)))


def _masked_fill(b, node, args, kwargs):
    p = {**dict(zip(('input', 'mask', 'value'), args)), **kwargs}
    mask = b.value(p['mask'])
    if not b.info(mask).is_constant:
        _refuse(node, 'the mask depends on the image')
    value = p['value'] if isinstance(p['value'], (int, float)) else _scalar(b, p['value'])
    return b.op('where', [mask, b.value(p['input'])], _shape(node), fill=float(value))


def _cast(b, node, args, kwargs):
    x = b.value(args[0])
    if b.info(x).dtype != node.meta['dtype'] and not (
            b.info(x).dtype.is_floating_point and node.meta['dtype'].is_floating_point):
        _refuse(node, f'a cast from {b.info(x).dtype} to {node.meta["dtype"]}')
    return x


def _spellings(names: Sequence[str], handler: Handler) -> Dict[str, Handler]:
    return {name: handler for name in names}


HANDLERS: Dict[str, Handler] = {
    'conv2d': _conv2d,
    'pad': _pad,
    'linear': _linear,
    **_spellings(('matmul', 'bmm'), _matmul),
    **_spellings(('add', 'radd', 'iadd'), _binary('add')),
    **_spellings(('sub', 'subtract', 'isub'), _binary('sub')),
    'rsub': _binary('sub', swapped=True),
    **_spellings(('mul', 'rmul', 'multiply', 'imul'), _binary('mul')),
    **_spellings(('div', 'truediv', 'true_divide', 'itruediv'), _binary('div')),
    'rtruediv': _binary('div', swapped=True),
    **_spellings(('maximum', ), _binary('maximum')),
    **_spellings(('minimum', ), _binary('minimum')),
    **{f: _unary(f) for f in ('sigmoid', 'exp', 'log', 'sin', 'cos', 'rsqrt', 'sqrt', 'reciprocal',
                              'tanh', 'neg', 'abs', 'erf', 'square', 'gelu', 'silu')},
    'hardtanh': _unary('clamp', 'min', 'max'),
    **_spellings(('clamp', 'clip'), _unary('clamp', 'min', 'max')),
    'relu': lambda b, n, a, k: b.op('relu', [b.value(a[0])], _shape(n)),
    'sum': _reduce('sum'),
    'mean': _reduce('mean'),
    'amax': _reduce('amax'),
    **_spellings(('view', 'reshape', 'flatten', 'unsqueeze', 'squeeze', 'unflatten'), _reshape),
    **_spellings(('transpose', 'swapaxes', 't'), _transpose),
    'permute': _permute,
    **_spellings(('contiguous', 'clone', 'detach', 'dropout', 'dropout2d', 'identity', 'alias'),
                 _identity),
    **_spellings(('expand', 'expand_as', 'broadcast_to'), _expand),
    **_spellings(('repeat', 'tile'), _tile),
    'getitem': _index,
    'set_item': _set_item,
    'split': _split,
    'chunk': _chunk,
    **_spellings(('unbind', 'iter'), _unbind),
    **_spellings(('cat', 'concat', 'concatenate'), _concat),
    'stack': _stack,
    'grid_sample': _grid_sample,
    **_spellings(('max_pool2d', 'boolean_dispatch', '_max_pool2d'), _max_pool2d),
    'topk': _topk,
    'gather': _gather,
    'masked_fill': _masked_fill,
    **_spellings(('to', 'float', 'type_as', 'type'), _cast),
}


def build_opgraph(captured: CapturedGraph) -> OpGraph:
    """Translate every captured call.

    Raises:
        BpuError: A call that has no kind here; the message names its site and function.
    """
    graph = OpGraph()
    b = GraphBuilder(graph)
    for node in captured.graph.nodes:
        b.node = node
        if node.op == 'placeholder':
            graph.values[node.name] = ValueInfo(node.meta['shape'], node.meta['dtype'])
            graph.inputs.append(node.name)
            b.alias[node.name] = node.name
        elif node.op == 'get_attr':
            data = captured.constants[node.target].detach()
            graph.values[node.name] = ValueInfo(
                tuple(data.shape), data.dtype, data, node.meta['learned'])
            b.alias[node.name] = node.name
        elif node.op == 'output':
            graph.outputs = [b.value(n) for n in node.args[0]]
        elif node.target is take_item and node.args[0].name in b.parts:
            b.alias[node.name] = b.parts[node.args[0].name](node.args[1])
        else:
            name = function_name(node.target)
            if name not in HANDLERS:
                _refuse(node, f'no integer form of {name}')
            value = HANDLERS[name](b, node, list(node.args), dict(node.kwargs))
            if value is not None:
                b.alias[node.name] = value
    return graph
