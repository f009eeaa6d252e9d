"""Translation of captured pooling of whole windows; see :mod:`mmdet_bpu.graph.open_pooling`."""
from torch import fx

from mmdet_bpu.graph.call_arguments import pair, refuse, shape_of
from mmdet_bpu.graph.canonical_windows import padded


def avg_pool2d(b, node: fx.Node, args: list, kwargs: dict):
    """Zeros around the image, if they count, are padded first."""
    p = {**dict(zip(('input', 'kernel_size', 'stride', 'padding'), args)), **kwargs}
    x, kernel = b.value(p['input']), pair(p['kernel_size'])
    if len(shape_of(node)) != 4:
        refuse(node, f'an average pool of {len(shape_of(node))} dimensions')
    stride, (top, left) = pair(p.get('stride') or kernel), pair(p.get('padding', 0))
    if top or left:
        x = padded(b, x, [0, 0, top, left], [0, 0, top, left])
    return b.op('avg_pool2d', [x], shape_of(node), kernel=kernel, stride=stride)


def adaptive_max_pool2d(b, node: fx.Node, args: list, kwargs: dict):
    """To 1 x 1, or to sizes that divide the image's."""
    p = {**dict(zip(('input', 'output_size', 'return_indices'), args)), **kwargs}
    x = b.value(p['input'])
    before, after = b.info(x).shape[2:], shape_of(node)[2:]
    if len(shape_of(node)) != 4 or any(n % m for n, m in zip(before, after)):
        refuse(node, f'an adaptive pool of {tuple(before)} to {tuple(after)} px; the sizes must '
               'divide')
    if tuple(after) == (1, 1):
        return b.op('amax', [x], shape_of(node), dims=[2, 3])
    kernel = [n // m for n, m in zip(before, after)]
    return b.op('max_pool2d', [x], shape_of(node), kernel=kernel, stride=kernel, padding=[0, 0],
                dilation=[1, 1], ceil_mode=False)
