"""Op limits of the Nash marches: facts of the vendor's published manual, as data.

A row is (kind, subject, allowed, level, reason); see :class:`mmdet_bpu.compiler.limits.Limit`.
Types are listed for every op that the manual lists. Dimension limits are listed for the ops that
the integer dialect can hold; quantities are named in :mod:`mmdet_bpu.compiler.measures`.

Read with sense, and marked as warnings: the bound on C_in x C_out of a linear layer, which the
vendor's own shipped models exceed, and gathers over more rows than the unit addresses and
deformable convolutions of another geometry than the unit has, which run partly off the BPU.
"""

MANUAL = "Vendor's published manual (OpenExplorer J6), HBIR operator limits"

I8 = ('si8',)
I16 = ('si16',)
I8_I16 = ('si8', 'si16')
I8_I16_I32 = ('si8', 'si16', 'si32')
I8_I16_BOOL = ('si8', 'si16', 'i1')
GATHERED = ('si8', 'si16', 'si32', 'f16', 'f32')
INDICES = ('si8', 'si16', 'si32', 'si64')
# "Same as lhs": both sides of one element type.
SAME = ('same_dtype', 'lhs,rhs')
LINEAR_PRODUCT = ('the manual bounds C_in x C_out by 65536, yet vendor models with 256 x 1024 '
                  'layers are shipped')
RESIZE_STEP = 'not on the BPU: the manual says that other steps run on the CPU'
SAMPLED_ELSEWHERE = 'not wholly on the BPU: beyond what its deformable convolution samples'
GATHER_ROWS = 'not wholly on the BPU: more rows than its gather unit addresses'


def _typed(*operands_and_types) -> tuple:
    pairs = zip(operands_and_types[::2], operands_and_types[1::2])
    return tuple(('dtype', operand, types) for operand, types in pairs)


def _product(lhs: str, rhs: str) -> tuple:
    return _typed(lhs, I8_I16, rhs, I8_I16, 'output', I8_I16_I32) + (
        ('not_both_int16', f'{lhs},{rhs}'),)


def _pool(area: str, most: int, least_pad: int) -> tuple:
    return _typed('input', I8_I16) + (
        ('range', 'kernel', (1, 256)), ('range', area, (None, most)),
        ('range', 'stride', (1, 256)), ('range', 'pad', (least_pad, 256)))


def _elementwise(types: tuple) -> tuple:
    return _typed('lhs', types, 'rhs', types) + (SAME,)


def _gathered(rows: int, index: str = 'indices') -> tuple:
    return _typed('input', GATHERED, index, INDICES) + (
        ('range', 'gathered rows', (1, rows), 'warning', GATHER_ROWS),)


_GATHER_SIDES = (
    ('range', 'H, W of int8', (1, 32768), 'warning', GATHER_ROWS),
    ('range', 'H, W of wider types', (1, 4096), 'warning', GATHER_ROWS),
    ('range', 'min(H, W)', (1, 4096), 'warning', GATHER_ROWS))
_CONV2D = _product('input', 'weight') + (
    ('range', 'N', (1, 4096)), ('range', 'H, W, C', (1, 65536)),
    ('range', 'weight C', (1, 8192)), ('range', 'KH, KW', (1, 31)),
    ('range', 'C_out of an inner conv', (1, 8192)), ('range', 'C_out', (1, 65536)),
    ('range', 'KH*KW*C', (1, 65535)),
    ('range', 'stride', (1, 256)), ('range', 'stride where dilated', (1, 1)),
    ('range', 'dilation', (1, 18)),
    ('range', 'pad', (None, 256)), ('range', 'pad + half of H, W', (0, None)),
    ('odd_or_two', 'stride of int16 depthwise'))
_DEFORM_CONV2D = _typed('offset', I16, 'mask', I8, 'weight', I8, 'output', I8_I16_I32) + tuple(
    (*row, 'warning', SAMPLED_ELSEWHERE) for row in (
        ('dtype', 'input', I8), ('range', 'stride', (1, 1)), ('range', 'dilation', (1, 1)),
        ('range', 'offset groups', (1, 2)), ('range', 'offset maps', (2, 256)),
        ('range', 'KH, KW', (1, 8)), ('range', 'OH*KH*OW*KW', (1, 720 * 1024)),
        ('range', 'H, W', (1, 1024)), ('range', 'H*W', (1, 720 * 1024)))) + (
    ('range', 'C', (1, 65536)), ('range', 'weight C', (1, 8192)), ('range', 'C_out', (1, 4096)),
    ('range', 'KH*KW*C', (1, 65535)), ('range', 'pad', (None, 256)),
    ('range', 'pad + half of H, W', (0, None)))
_CONVTRANSPOSE = (
    ('range', 'N', (1, 128)), ('range', 'H, W', (1, 65536)), ('range', 'C', (1, 2048)),
    ('range', 'weight N, C', (1, 2048)), ('range', 'KH, KW', (1, 14)),
    ('range', 'KH*KW', (2, None)), ('range', 'KH*KW*C', (1, 65536)), ('range', 'stride', (1, 14)),
    ('range', 'pad', (0, 256)), ('range', 'dilation', (1, 1)))
_LINEAR = _product('input', 'weight') + (
    ('range', 'input dims', (1, 65536)), ('range', 'C_in, C_out', (1, 8192)),
    ('range', 'C_in*C_out', (1, 65536), 'warning', LINEAR_PRODUCT))
_MATMUL = _product('lhs', 'rhs') + (
    ('range', 'batch dims', (1, 4096)), ('range', 'M, K, N', (1, 8192)))
_REDUCE = _typed('input', I8_I16) + (
    ('range', 'reduced dims', (1, 65535)), ('range', 'reduced elements', (1, 65535)))
_JOIN = (('range', 'number of inputs', (1, 1024)), ('range', 'input dims', (None, 131071)),
         ('range', 'bytes', (None, 2**31 - 1)))
_SLICE = (('range', 'input dims', (None, 2097151)),)

ROW_NAMES = {'bpu.table': 'of any unary function', 'bpu.requantize': 'of any quantized op'}
_UNARY = ('abs', 'acos', 'acosh', 'asin', 'asinh', 'atan', 'atanh', 'bitshift', 'ceil', 'clip',
          'cos', 'cosh', 'erf', 'exp', 'filter', 'floor', 'gelu', 'leaky_relu', 'log', 'neg',
          'reciprocal', 'rle', 'rsqrt', 'sigmoid', 'sin', 'sinh', 'softplus', 'sqrt', 'swish',
          'tan', 'tanh')

BPU_ROWS: dict[str, tuple] = {
    **{name: _typed('input', I8_I16) for name in _UNARY},
    **{name: _REDUCE for name in ('reduce_argmax', 'reduce_argmin', 'reduce_max', 'reduce_mean',
                                  'reduce_min', 'reduce_sum')},
    **{name: _elementwise(I8_I16) for name in ('bitwise_and', 'bitwise_or', 'bitwise_xor', 'max',
                                               'min', 'mul', 'prelu', 'sub')},
    **{name: _elementwise(I8_I16) + _typed('output', ('i1',))
       for name in ('greater', 'greater_equal', 'less', 'less_equal')},
    **{name: _elementwise(I8_I16_BOOL) + _typed('output', ('i1',))
       for name in ('equal', 'logical_and', 'logical_or', 'logical_xor')},
    **{name: () for name in ('constant', 'dpp', 'reshape', 'roll', 'select', 'tile',
                             'transpose')},
    'add': _elementwise(I8_I16_I32),
    'avg_pool': _pool('KH*KW*bytes', 24576, -255),
    'batchnorm': _typed('input', I8_I16),
    'bitwise_not': _typed('input', I8_I16, 'output', I8),
    'cast_type': _typed('input', I8_I16_BOOL),
    'concat': _JOIN,
    'conv': _CONV2D,
    'conv2d': _CONV2D,
    'conv3d': _typed('lhs', I8, 'rhs', I8),
    'convtranspose': _product('input', 'weight') + _CONVTRANSPOSE,
    'cumsum': _typed('input', I8_I16, 'output', I8_I16_I32),
    'deform_conv2d': _DEFORM_CONV2D,
    'flip': _typed('input', I8_I16_I32),
    # What the vendor's tools insert at an input; the manual states no limits for it.
    'image_convert': (),
    'image_preprocess': (),
    'gather_elements': _gathered(32768) + _GATHER_SIDES,
    'grid_sample': _typed('input', I8, 'grid', I16) + (
        ('range', 'input dims', (1, 65536)), ('range', 'min(H, W)', (1, 4096))),
    'index': _gathered(32768, 'index'),
    'linear': _LINEAR,
    'logical_not': _typed('input', I8_I16_BOOL, 'output', ('i1',)),
    'matmul': _MATMUL,
    'max_pool': _pool('KH*KW', 32768, -255),
    # The manual bounds begin and end by 1..1024; 0 means that the side is not padded.
    'pad': (('range', 'padding', (0, 1024)),),
    'relu': _typed('input', I8_I16_I32),
    # Part of every quantized op's output stage.
    'requantize': (),
    'resize2d': _typed('input', I8) + (
        ('range', 'integer part of step', (-256, 255), 'warning', RESIZE_STEP), ),
    'slice': _SLICE,
    'slice_scatter': _SLICE,
    'stack': _JOIN,
    # Any unary function: the manual gives all of them one set of limits.
    'table': _typed('input', I8_I16, 'output', I8_I16),
    'warp': _typed('input', I8, 'grid', I16) + (
        ('range', 'input dims', (1, 65536)), ('range', 'min(H, W)', (1, 4096))),
    'where': _typed('condition', ('i1',), 'lhs', I8_I16, 'rhs', I8_I16),
}

# nash-p also takes float16 in some of these; integer programs never hold it.
NASH_P_BPU_ROWS: dict[str, tuple] = {
    'gather_elements': _gathered(4096),
    'index': _gathered(4096, 'index'),
    'max_pool': _pool('KH*KW', 32768, -4),
}

UNSUPPORTED_BPU = frozenset((
    'bev_pool_v2', 'custom', 'div', 'dynamic_slice', 'fake_cast', 'fpp', 'gather_nd', 'identity',
    'layernorm', 'log_softmax', 'masked_select', 'mod', 'nan_to_num', 'nms', 'nonzero',
    'point_pillar_preprocess', 'point_pillar_scatter', 'pow', 'reduce_all', 'roi_align', 'round',
    'rpp_v2', 'scatter_elements', 'scatter_nd', 'sign', 'softmax', 'sort', 'topk'))

# Not refused: the model still compiles, this op runs elsewhere.
FALLBACKS = {'topk': 'the scalar unit'}

_VPU_BOTH = frozenset((
    'abs', 'acos', 'asin', 'atan', 'ceil', 'clip', 'cos', 'div', 'equal', 'exp', 'floor',
    'greater', 'greater_equal', 'layernorm', 'leaky_relu', 'less', 'less_equal', 'log',
    'logical_and', 'logical_not', 'logical_or', 'logical_xor', 'max', 'min', 'mod', 'neg', 'pow',
    'reciprocal', 'reduce_argmax', 'reduce_max', 'reduce_mean', 'reduce_min', 'reduce_sum',
    'relu', 'round', 'rsqrt', 'sigmoid', 'sign', 'sin', 'softmax', 'softplus', 'sqrt', 'sub',
    'topk'))
VPU_FLOAT16 = {
    'nash-e': _VPU_BOTH | {'add', 'mul'},
    'nash-p': _VPU_BOTH | {'max_pool', 'where'},
}
