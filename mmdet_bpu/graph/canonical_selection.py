"""Translation of captured sampling, pooling, selection and casts."""
import torch

from mmdet_bpu.graph.call_arguments import axis_of, pair, refuse, shape_of


def grid_sample(b, node, args, kwargs):
    names = ('input', 'grid', 'mode', 'padding_mode', 'align_corners')
    p = {**dict(zip(names, args)), **kwargs}
    if p.get('mode', 'bilinear') != 'bilinear' or p.get('padding_mode', 'zeros') not in (
            'zeros', 'border') or p.get('align_corners'):
        refuse(node, 'only bilinear, zeros or border, align_corners=False')
    return b.op('grid_sample', [b.value(p['input']), b.value(p['grid'])], shape_of(node),
                padding=p.get('padding_mode', 'zeros'))


def max_pool2d(b, node, args, kwargs):
    names = ('input', 'kernel_size', 'stride', 'padding', 'dilation', 'ceil_mode')
    p = {**dict(zip(names, args)), **kwargs}

    kernel = pair(p['kernel_size'])
    return b.op('max_pool2d', [b.value(p['input'])], shape_of(node), kernel=kernel,
                stride=pair(p.get('stride') or kernel), padding=pair(p.get('padding', 0)),
                dilation=pair(p.get('dilation', 1)), ceil_mode=bool(p.get('ceil_mode', False)))


def topk(b, node, args, kwargs):
    names = ('input', 'k', 'dim', 'largest', 'sorted')
    p = {**dict(zip(names, args)), **kwargs}
    if not p.get('largest', True):
        refuse(node, 'top-k of the smallest')
    x = b.value(p['input'])
    shape = list(b.info(x).shape)
    dim = axis_of(p.get('dim', -1), len(shape))
    shape[dim] = int(p['k'])

    def part(i: int) -> str:
        dtype = torch.int64 if i else b.info(x).dtype
        return b.op('topk', [x], tuple(shape), dtype=dtype, last=False, k=int(p['k']), dim=dim,
                    part=('values', 'indices')[i])

    b.parts[node.name] = part


def gather(b, node, args, kwargs):
    p = {**dict(zip(('input', 'dim', 'index'), args)), **kwargs}
    x = b.value(p['input'])
    return b.op('gather', [x, b.value(p['index'])], shape_of(node),
                dim=axis_of(p['dim'], len(b.info(x).shape)))


def cast(b, node, args, kwargs):
    x = b.value(args[0])
    if b.info(x).dtype != node.meta['dtype'] and not (
            b.info(x).dtype.is_floating_point and node.meta['dtype'].is_floating_point):
        refuse(node, f'a cast from {b.info(x).dtype} to {node.meta["dtype"]}')
    return x
