"""Translation of captured torch calls into the kinds of :mod:`mmdet_bpu.graph.opgraph`.

The table maps names of torch functions to the handlers in the modules ``canonical_*``.
"""
from typing import Dict, Sequence

from mmdet_bpu.graph import canonical_arithmetic as arithmetic
from mmdet_bpu.graph import canonical_indexing as indexing
from mmdet_bpu.graph import canonical_masks as masks
from mmdet_bpu.graph import canonical_movement as movement
from mmdet_bpu.graph import canonical_pooling as pooling
from mmdet_bpu.graph import canonical_resampling as resampling
from mmdet_bpu.graph import canonical_selection as selection
from mmdet_bpu.graph import canonical_windows as windows
from mmdet_bpu.graph.call_arguments import Handler, refuse, shape_of
from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.graph.functional_forms import take_item
from mmdet_bpu.graph.opgraph import GraphBuilder, OpGraph, ValueInfo
from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.program.functions import spellings


def _spellings(names: Sequence[str], handler: Handler) -> Dict[str, Handler]:
    return {name: handler for name in names}


HANDLERS: Dict[str, Handler] = {
    'conv2d': arithmetic.conv2d,
    'batch_norm': arithmetic.batch_norm,
    'deform_conv2d': arithmetic.deform_conv2d,
    'conv_transpose2d': arithmetic.conv_transpose2d,
    'linear': arithmetic.linear,
    **_spellings(('matmul', 'bmm', 'mm'), arithmetic.matmul),
    **_spellings(('add', 'radd', 'iadd'), arithmetic.binary('add')),
    **_spellings(('sub', 'subtract', 'isub'), arithmetic.binary('sub')),
    'rsub': arithmetic.binary('sub', swapped=True),
    **_spellings(('mul', 'rmul', 'multiply', 'imul'), arithmetic.binary('mul')),
    **_spellings(('div', 'divide', 'truediv', 'true_divide', 'itruediv'), arithmetic.binary('div')),
    **_spellings(('rdiv', 'rtruediv'), arithmetic.binary('div', swapped=True)),
    'maximum': arithmetic.binary('maximum'),
    'minimum': arithmetic.binary('minimum'),
    'max': arithmetic.extreme('amax', 'maximum'),
    'min': arithmetic.extreme('amin', 'minimum'),
    **{name: arithmetic.unary(row) for name, row in spellings().items()},
    'clamp_min': lambda b, n, a, k: arithmetic.binary('maximum')(b, n, [*a, *k.values()], {}),
    'clamp_max': lambda b, n, a, k: arithmetic.binary('minimum')(b, n, [*a, *k.values()], {}),
    'hardtanh': arithmetic.hardtanh,
    'relu6': lambda b, n, a, k: arithmetic.hardtanh(b, n, [a[0], 0.0, 6.0], {}),
    'relu': lambda b, n, a, k: b.op('relu', [b.value(a[0])], shape_of(n)),
    'sum': arithmetic.reduce('sum'),
    'mean': arithmetic.reduce('mean'),
    'amax': arithmetic.reduce('amax'),
    'amin': arithmetic.reduce('amin'),
    **_spellings(('view', 'reshape', 'flatten', 'unsqueeze', 'squeeze', 'unflatten', 'ravel',
                  'view_as', 'reshape_as'), movement.reshape),
    **_spellings(('transpose', 'swapaxes', 'swapdims', 't'), movement.transpose),
    **_spellings(('T', 'mT'), movement.matrix_transpose),
    'permute': movement.permute,
    **_spellings(('movedim', 'moveaxis'), movement.movedim),
    **_spellings(('contiguous', 'clone', 'detach', 'data', 'dropout', 'dropout2d', 'identity',
                  'alias'), movement.identity),
    **_spellings(('expand', 'expand_as', 'broadcast_to'), movement.expand),
    **_spellings(('repeat', 'tile'), movement.tile),
    **_spellings(('split', 'split_with_sizes', 'unsafe_split'), movement.split),
    **_spellings(('chunk', 'unsafe_chunk'), movement.chunk),
    'tensor_split': movement.tensor_split,
    **_spellings(('unbind', 'iter'), movement.unbind),
    **_spellings(('cat', 'concat', 'concatenate'), movement.concat),
    'stack': movement.stack,
    'getitem': indexing.index,
    'set_item': indexing.set_item,
    'index_select': indexing.index_select,
    'narrow': indexing.narrow,
    'select': indexing.select,
    **_spellings(('gt', 'greater'), masks.sign('positive')),
    **_spellings(('ge', 'greater_equal'), masks.sign('not_negative')),
    **_spellings(('or', 'ior', 'logical_or', 'bitwise_or'), masks.combination('or')),
    **_spellings(('and', 'iand', 'logical_and', 'bitwise_and'), masks.combination('and')),
    **_spellings(('invert', 'logical_not', 'bitwise_not'), masks.combination('not')),
    'masked_fill': indexing.masked_fill,
    'where': indexing.where,
    'pad': windows.pad,
    'roll': windows.roll,
    'flip': windows.flip,
    'unfold': windows.unfold,
    'pixel_shuffle': windows.pixel_shuffle,
    'pixel_unshuffle': windows.pixel_unshuffle,
    **_spellings(('channel_shuffle', 'native_channel_shuffle'), windows.channel_shuffle),
    'repeat_interleave': windows.repeat_interleave,
    'grid_sample': selection.grid_sample,
    **_spellings(('max_pool2d', '_max_pool2d'), selection.max_pool2d),
    'avg_pool2d': pooling.avg_pool2d,
    **_spellings(('adaptive_max_pool2d', '_adaptive_max_pool2d'), pooling.adaptive_max_pool2d),
    **_spellings(('interpolate', 'upsample'), resampling.interpolate),
    'topk': selection.topk,
    'gather': selection.gather,
    **_spellings(('to', 'float', 'type_as', 'type'), selection.cast),
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
            graph.values[node.name] = ValueInfo(tuple(data.shape), data.dtype, data,
                                                node.meta['learned'], node.meta.get('origin', ''))
            b.alias[node.name] = node.name
        elif node.op == 'output':
            graph.outputs = [b.value(n) for n in node.args[0]]
        elif node.target is take_item and node.args[0].name in b.parts:
            b.alias[node.name] = b.parts[node.args[0].name](node.args[1])
        else:
            name = function_name(node.target)
            if name not in HANDLERS:
                refuse(node, f'no integer form of {name}')
            args, kwargs = list(node.args), dict(node.kwargs)
            if not args:
                first = 'tensors' if 'tensors' in kwargs else 'input'
                args = [kwargs.pop(first)]
            value = HANDLERS[name](b, node, args, kwargs)
            if value is not None:
                b.alias[node.name] = value
    masks.check_readers(b)
    return graph
