"""Small integer modules that have every operation between them: seeds of several kinds."""
import numpy as np
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.types import tensor_type

SCALE = 0.05
RATE = dict(multiplier=[20000], shift=[21])
CONTRACT = dict(
    preprocessing=dict(resize=dict(height=8, width=8, keep_ratio=True, interpolation='bilinear',
                                   corner='top_left', pad_value=[114.0] * 3),
                       color_order='rgb', mean=[123.675, 116.28, 103.53],
                       std=[58.395, 57.12, 57.375], by='host'),
    postprocessing=dict(family='detr', activation='sigmoid', num_classes=5, max_per_img=20,
                        min_bbox_size=None, nms=None, input_shape=[8, 8], by='host',
                        head='DETRHead'),
    outputs=[dict(name='cls_scores'), dict(name='bbox_preds')],
    output_tree=['cls_scores', 'bbox_preds'], classes=['a', 'b', 'c', 'd', 'e'], march='nash-e')


class _Module:
    """An :class:`OpBuilder` that knows the types of its values by shape and dtype."""

    def __init__(self, **inputs: tuple) -> None:
        types = {name: _type(*value) for name, value in inputs.items()}
        self.builder = OpBuilder(list(types.items()), 'bpu')
        self.inputs = self.builder.inputs
        self._random = np.random.default_rng(3)

    def op(self, name: str, operands: list, shape: tuple, dtype: str = 'si8', /, **attrs):
        return self.builder.op(f'bpu.{name}', operands, attrs, _type(shape, dtype), f'net/{name}')

    def integers(self, *shape: int, dtype: str = 'int8', low: int = -20, high: int = 20):
        scale = None if dtype == 'int32' else SCALE
        return self.builder.constant(self._random.integers(low, high, shape).astype(dtype), scale)

    def weights(self, *shape: int) -> list:
        return [self.integers(*shape), self.integers(shape[0], dtype='int32', low=-500, high=500)]


def _type(shape: tuple, dtype: str = 'si8'):
    return tensor_type(shape, dtype, None if dtype in ('si32', 'i1') else SCALE)


def modules() -> dict[str, ModuleOp]:
    """Name -> module; the first one is a detector with a deploy contract."""
    return dict(detector=_detector(), sampling=_sampling(), elements=_elements(),
                movement=_movement())


def _detector() -> ModuleOp:
    net = _Module(image=((1, 8, 8, 3), ))
    window = dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=1)
    stem = net.op('conv2d', [*net.inputs, *net.weights(4, 3, 3, 3)], (1, 8, 8, 4), relu=True,
                  **window, **RATE)
    block = net.op('conv2d', [stem, *net.weights(4, 3, 3, 4), stem], (1, 8, 8, 4), relu=True,
                   multiplier=[20000] * 4, shift=[20] * 4, residual_multiplier=[16384],
                   residual_shift=[9], **window)
    pooled = net.op('max_pool', [block], (1, 4, 4, 4), kernel=[3, 3], stride=[2, 2],
                    pad=[1, 1, 1, 1], dilation=[1, 1], ceil_mode=False)
    curved = net.op('table', [pooled], (1, 4, 4, 4),
                    entries=[abs(index - 128) // 2 for index in range(256)])
    up = net.op('conv_transpose2d', [curved, *net.weights(4, 2, 2, 4)], (1, 8, 8, 4),
                stride=[2, 2], pad=[0] * 4, dilation=[1, 1], groups=1, relu=False, **RATE)
    down = net.op('avg_pool', [up], (1, 4, 4, 4), kernel=[2, 2], stride=[2, 2],
                  multiplier=[16384], shift=[16])
    tokens = net.op('reshape', [down], (1, 16, 4), shape=[1, 16, 4])
    scores = net.op('linear', [tokens, *net.weights(5, 4)], (1, 16, 5), 'si16', multiplier=[16384],
                    shift=[14], relu=False)
    boxes = net.op('linear', [tokens, *net.weights(4, 4)], (1, 16, 4), 'si16', multiplier=[20000],
                   shift=[17], relu=False)
    return net.builder.finish([('cls_scores', scores), ('bbox_preds', boxes)], CONTRACT)


def _sampling() -> ModuleOp:
    net = _Module(feature=((2, 5, 4, 4), ), grid=((2, 3, 4, 2), 'si16'),
                  offset=((2, 5, 4, 36), 'si16'))
    feature, grid, offset = net.inputs
    sampled = net.op('grid_sample', [feature, grid], (2, 3, 4, 4), x_multiplier=[28672],
                     x_shift=[22], x_offset=384, y_multiplier=[18432], y_shift=[21], y_offset=512,
                     fraction_bits=7, padding='zeros')
    bent = net.op('deform_conv2d', [feature, *net.weights(4, 3, 3, 2), offset], (2, 5, 4, 4),
                  stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=2, offset_groups=2,
                  fraction_bits=8, sample_bits=7, offset_multiplier=[1 << 14], offset_shift=[14],
                  relu=True, multiplier=[20000], shift=[28])
    wide = net.op('resize', [bent], (2, 6, 8, 4), size=[6, 8], start=[0, -5],
                  step=[1 << 19, 1 << 19], position_bits=20, fraction_bits=11, mode='bilinear')
    mean = net.op('reduce_sum', [sampled], (2, 3, 1, 4), dims=[2], multiplier=[16384], shift=[16])
    flat = net.op('reshape', [mean], (2, 12), shape=[2, 12])
    values, indices = net.builder.op('bpu.topk', [flat], dict(k=6, dim=1),
                                     [_type((2, 6)), _type((2, 6), 'si32')], 'net/topk')
    picked = net.op('gather', [flat, indices], (2, 6), dim=1)
    head = net.op('slice', [flat], (2, 5), begin=[0, 2], end=[2, 12], step=[1, 2])
    joined = net.op('concat', [values, picked, head], (2, 17), dim=1)
    return net.builder.finish([('joined', joined), ('indices', indices), ('wide', wide)],
                              {'scale': 0.1})


def _elements() -> ModuleOp:
    net = _Module(x=((2, 3, 4), ), y=((2, 3, 4), 'si16'))
    x, y = net.inputs
    sides = dict(lhs_multiplier=[20000], lhs_shift=[10], rhs_multiplier=[20000], rhs_shift=[10],
                 guard_bits=4)
    total = net.op('add', [x, y], (2, 3, 4), 'si16', relu=False, **sides)
    change = net.op('sub', [total, net.integers(4)], (2, 3, 4), 'si16', relu=True, **sides)
    scaled = net.op('mul', [change, x], (2, 3, 4), 'si16', multiplier=[20000], shift=[18])
    curved = net.op('table', [scaled], (2, 3, 4), 'si16',
                    entries=[index - 200 for index in range(8 * 64 + 1)], segment_shift=[7] * 8,
                    segment_start=list(range(-32768, 32768, 8192)))
    product = net.op('matmul', [curved, net.op('transpose', [x], (2, 4, 3), dims=[0, 2, 1])],
                     (2, 3, 3), multiplier=[20000], shift=[20])
    narrow = net.op('requantize', [curved], (2, 3, 4), multiplier=[1 << 14], shift=[16], relu=True)
    larger = net.op('max', [narrow, x], (2, 3, 4))
    smaller = net.op('min', [larger, net.integers(3, 1)], (2, 3, 4))
    mask = net.op('positive', [smaller], (2, 3, 4), 'i1')
    filled = net.op('where', [mask, x], (2, 3, 4), fill=-7)
    other = net.op('where', [net.op('not_negative', [x], (2, 3, 4), 'i1'), filled, smaller],
                   (2, 3, 4))
    top = net.op('reduce_max', [net.op('relu', [other], (2, 3, 4))], (2, 3, 1), dims=[2])
    low = net.op('reduce_min', [other], (2, 1, 4), dims=[1])
    return net.builder.finish([('product', product), ('top', top), ('low', low)], {})


def _movement() -> ModuleOp:
    net = _Module(x=((2, 3, 4), 'si16'))
    x, = net.inputs
    turned = net.op('flip', [net.op('roll', [x], (2, 3, 4), 'si16', shifts=[-1, 2], dims=[0, 1])],
                    (2, 3, 4), 'si16', dims=[1])
    tiled = net.op('tile', [turned], (4, 3, 4), 'si16', multiples=[2, 1, 1])
    padded = net.op('pad', [tiled], (5, 3, 6), 'si16', begin=[1, 0, 0], end=[0, 0, 2], value=-3)
    moved = net.op('transpose', [padded], (3, 5, 6), 'si16', dims=[1, 0, 2])
    rows = net.op('slice', [moved], (2, 3, 6), 'si16', begin=[0, 0, 0], end=[3, 5, 6],
                  step=[2, 2, 1])
    flat = net.op('reshape', [rows], (2, 18), 'si16', shape=[2, 18])
    return net.builder.finish([('flat', flat), ('input', x)])
