"""The bpu dialect: what its verifier accepts and refuses, and that nothing in it is a float."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS, BPU_SPECS
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.hbir.types import tensor_type

S = 0.5
RQ = dict(multiplier=[20000], shift=[10])


def i8(*shape):
    return tensor_type(shape, 'si8', S)


def i16(*shape):
    return tensor_type(shape, 'si16', S)


def i32(*shape):
    return tensor_type(shape, 'si32')


def i1(*shape):
    return tensor_type(shape, 'i1')


def build(name, types, attrs, result):
    builder = OpBuilder([(f'x{index}', type_) for index, type_ in enumerate(types)], 'bpu')
    value = builder.op(f'bpu.{name}', builder.inputs, attrs, result, site='neck/here')
    values = value if isinstance(value, list) else [value]
    return builder.finish([(f'y{index}', value) for index, value in enumerate(values)])


CONV = dict(stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], groups=1, relu=True, **RQ)
CONV_TYPES = [i8(1, 8, 8, 4), i8(6, 3, 3, 4), i32(6)]
RESIDUAL = dict(residual_multiplier=[20000], residual_shift=[3])
ADD = dict(lhs_multiplier=[20000], lhs_shift=[10], rhs_multiplier=[20000], rhs_shift=[10],
           guard_bits=4, relu=False)
SAMPLE = dict(x_multiplier=[20000], x_shift=[10], x_offset=100, y_multiplier=[20000],
              y_shift=[10], y_offset=-7, fraction_bits=8, padding='zeros')
RESIZE = dict(size=[4, 6], start=[0, -5], step=[1 << 19, 1 << 19], position_bits=20,
              fraction_bits=11, mode='bilinear')
DEFORM = dict(stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], groups=2, offset_groups=2,
              fraction_bits=8, sample_bits=7, offset_multiplier=[1 << 14], offset_shift=[14],
              relu=True, **RQ)
DEFORM_TYPES = [i8(1, 8, 8, 4), i8(6, 3, 3, 2), i32(6), i16(1, 4, 4, 36)]
POOL = dict(kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], ceil_mode=False)
SEGMENTS = dict(entries=list(range(8 * 64 + 1)), segment_shift=[7] * 8,
                segment_start=list(range(-32768, 32768, 8192)))

def u8(*shape):
    return tensor_type(shape, 'ui8')


def plain(*shape):
    return tensor_type(shape, 'si8')


COLORS = dict(matrix=[1, 0, 2, 1, -1, -2, 1, 3, 0], offset=[5] * 3, low=[-112, -128, -128], shift=1,
              levels=list(range(-128, 128)) * 3)

VALID = [
    ('image_convert', [u8(1, 4, 6, 1), u8(1, 2, 3, 2)], {}, plain(1, 4, 6, 3)),
    ('image_convert', [u8(1, 3, 5, 1)], {}, plain(1, 3, 5, 1)),
    ('image_preprocess', [plain(1, 4, 6, 3)], COLORS, i8(1, 4, 6, 3)),
    ('constant', [], dict(value=np.zeros((2, 3), np.int8)), None),
    ('conv2d', CONV_TYPES, CONV, i8(1, 4, 4, 6)),
    ('conv2d', CONV_TYPES + [i8(1, 4, 4, 6)], {**CONV, **RESIDUAL}, i16(1, 4, 4, 6)),
    ('conv2d', [i8(1, 8, 8, 4), i8(6, 3, 3, 2), i32(6)], {**CONV, 'groups': 2}, i8(1, 4, 4, 6)),
    ('conv2d', CONV_TYPES, {**CONV, 'multiplier': [20000] * 6, 'shift': [9] * 6},
     i8(1, 4, 4, 6)),
    ('deform_conv2d', DEFORM_TYPES, DEFORM, i8(1, 4, 4, 6)),
    ('deform_conv2d', [i16(1, 8, 8, 4), *DEFORM_TYPES[1:], i8(1, 4, 4, 18)],
     {**DEFORM, 'sample_bits': 16, 'multiplier': [20000] * 6, 'shift': [9] * 6}, i16(1, 4, 4, 6)),
    ('conv_transpose2d', [i8(1, 5, 6, 4), i8(6, 4, 4, 4), i32(6)], CONV, i8(1, 10, 12, 6)),
    ('conv_transpose2d', [i8(1, 5, 6, 4), i8(6, 3, 3, 2), i32(6), i8(1, 10, 12, 6)],
     {**CONV, **RESIDUAL, 'groups': 2, 'pad': [1, 1, 0, 0]}, i16(1, 10, 12, 6)),
    ('linear', [i16(2, 5, 4), i8(6, 4), i32(6)], RQ, i32(2, 5, 6)),
    ('matmul', [i16(2, 5, 4), i8(2, 4, 3)], RQ, i16(2, 5, 3)),
    ('add', [i8(2, 5, 4), i16(4)], ADD, i8(2, 5, 4)),
    ('sub', [i8(2, 1), i8(1, 3)], ADD, i8(2, 3)),
    ('mul', [i16(2, 5, 4), i16(5, 1)], RQ, i16(2, 5, 4)),
    ('requantize', [i8(2, 5)], dict(multiplier=[1 << 14], shift=[14], relu=False), i16(2, 5)),
    ('table', [i8(2, 5)], dict(entries=list(range(256))), i16(2, 5)),
    ('table', [i16(2, 5)], SEGMENTS, i16(2, 5)),
    ('relu', [i16(2, 5)], {}, i16(2, 5)),
    ('reduce_sum', [i8(2, 5, 4)], dict(dims=[0, 2], **RQ), i16(1, 5, 1)),
    ('reduce_max', [i8(2, 5, 4)], dict(dims=[2]), i8(2, 5, 1)),
    ('reduce_min', [i8(2, 5, 4)], dict(dims=[0, 2]), i8(1, 5, 1)),
    ('max_pool', [i8(1, 9, 9, 4)], POOL, i8(1, 5, 5, 4)),
    ('avg_pool', [i8(1, 9, 8, 4)], dict(kernel=[3, 2], stride=[2, 2], **RQ), i16(1, 4, 4, 4)),
    ('grid_sample', [i8(2, 9, 9, 4), i16(2, 3, 7, 2)], SAMPLE, i8(2, 3, 7, 4)),
    ('resize', [i8(1, 2, 3, 4)], RESIZE, i8(1, 4, 6, 4)),
    ('resize', [i8(1, 2, 3, 4)], {**RESIZE, 'mode': 'nearest', 'fraction_bits': 0}, i8(1, 4, 6, 4)),
    ('topk', [i16(1, 9)], dict(k=3, dim=1), [i16(1, 3), i32(1, 3)]),
    ('gather', [i16(1, 9, 4), i32(1, 3, 4)], dict(dim=1), i16(1, 3, 4)),
    ('positive', [i16(1, 9, 4)], {}, i1(1, 9, 4)),
    ('not_negative', [i8(9, 4)], {}, i1(9, 4)),
    ('where', [i1(9, 1), i16(1, 9, 4)], dict(fill=-32768), i16(1, 9, 4)),
    ('where', [i1(9, 1), i16(1, 9, 4), i16(1, 9, 4)], {}, i16(1, 9, 4)),
    ('max', [i8(2, 5, 4), i8(5, 1)], {}, i8(2, 5, 4)),
    ('min', [i16(2, 1), i16(1, 3)], {}, i16(2, 3)),
    ('flip', [i8(2, 5)], dict(dims=[1]), i8(2, 5)),
    ('roll', [i1(2, 5)], dict(shifts=[-1, 3], dims=[0, 1]), i1(2, 5)),
    ('reshape', [i8(2, 6)], dict(shape=[3, 4]), i8(3, 4)),
    ('transpose', [i8(2, 6, 1)], dict(dims=[2, 0, 1]), i8(1, 2, 6)),
    ('slice', [i8(5, 6)], dict(begin=[1, 0], end=[4, 6], step=[2, 4]), i8(2, 2)),
    ('concat', [i8(5, 6), i8(5, 1)], dict(dim=1), i8(5, 7)),
    ('tile', [i1(5, 6)], dict(multiples=[2, 1]), i1(10, 6)),
    ('pad', [i8(5, 6)], dict(begin=[1, 0], end=[0, 2], value=-3), i8(6, 8)),
]


@pytest.mark.parametrize('name, types, attrs, result', VALID)
def test_a_valid_operation_builds_and_its_text_comes_back(name, types, attrs, result):
    module = build(name, types, attrs, result or tensor_type((2, 3), 'si8'))
    text = print_text(module)
    assert print_text(parse_text(text)) == text
    assert 'site = "neck/here"' in text


def test_every_operation_is_tested_and_has_a_kernel():
    assert {name for name, *_ in VALID} == set(BPU_SPECS)
    assert set(KERNELS) | {'bpu.constant'} == set(BPU_OPS)


REFUSED = [
    ('image_convert', [u8(1, 3, 6, 1), u8(1, 1, 3, 2)], {}, plain(1, 3, 6, 3), 'even sides'),
    ('image_convert', [u8(1, 4, 6, 1), u8(1, 4, 6, 2)], {}, plain(1, 4, 6, 3), 'uv has shape'),
    ('image_convert', [u8(1, 4, 6, 2)], {}, plain(1, 4, 6, 2), 'y has 2 channels'),
    ('image_convert', [u8(1, 4, 6, 1)], {}, plain(1, 4, 6, 3), r'expected \(1, 4, 6, 1\)'),
    ('image_convert', [plain(1, 4, 6, 1)], {}, plain(1, 4, 6, 1), 'tensor of ui8'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'matrix': [1] * 8}, i8(1, 4, 6, 3),
     'matrix has 8 values, expected 9'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'levels': [0] * 767}, i8(1, 4, 6, 3),
     'levels has 767 values, expected 768'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'levels': [128] * 768}, i8(1, 4, 6, 3),
     'levels are 128 to 128, expected -128 to 127'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'low': [-129] * 3}, i8(1, 4, 6, 3),
     'low are -129'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'shift': 31}, i8(1, 4, 6, 3), 'shift is 31'),
    ('image_preprocess', [plain(1, 4, 6, 3)], {**COLORS, 'matrix': [1 << 24] + [0] * 8},
     i8(1, 4, 6, 3), 'reach 2147483653'),
    ('image_preprocess', [plain(1, 4, 6, 2)], COLORS, i8(1, 4, 6, 2), 'image has 2 channels'),
    ('conv2d', [i16(1, 8, 8, 4), i16(6, 3, 3, 4), i32(6)], CONV, i8(1, 4, 4, 6), 'int16 x int16'),
    ('linear', [i16(2, 4), i16(6, 4), i32(6)], RQ, i8(2, 6), 'int16 x int16'),
    ('matmul', [i16(2, 4), i16(4, 6)], RQ, i8(2, 6), 'int16 x int16'),
    ('conv2d', [i8(1, 8, 8, 5), *CONV_TYPES[1:]], CONV, i8(1, 4, 4, 6), '5 channels'),
    ('conv2d', CONV_TYPES, CONV, i8(1, 8, 8, 6), r'expected \(1, 4, 4, 6\)'),
    ('conv2d', CONV_TYPES[:2] + [i32(5)], CONV, i8(1, 4, 4, 6), 'bias has shape'),
    ('conv2d', CONV_TYPES[:2] + [i16(6)], CONV, i8(1, 4, 4, 6), 'tensor of si32'),
    ('conv2d', CONV_TYPES, {**CONV, **RESIDUAL}, i8(1, 4, 4, 6), 'residual'),
    ('conv2d', CONV_TYPES + [i8(1, 4, 4, 6)], CONV, i8(1, 4, 4, 6), 'residual'),
    ('conv2d', CONV_TYPES, {**CONV, 'multiplier': [20000] * 5}, i8(1, 4, 4, 6), '5 and 1 values'),
    ('conv2d', CONV_TYPES, {**CONV, 'multiplier': [9]}, i8(1, 4, 4, 6), 'neither 0 nor in'),
    ('conv2d', CONV_TYPES, {**CONV, 'pad': [1, 1]}, i8(1, 4, 4, 6), '4 elements'),
    ('conv2d', CONV_TYPES, {**CONV, 'stride': [0, 1]}, i8(1, 4, 4, 6), 'stride 0'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'groups': 1}, i8(1, 4, 4, 6), '4 channels'),
    ('deform_conv2d', DEFORM_TYPES, DEFORM, i8(1, 8, 8, 6), r'expected \(1, 4, 4, 6\)'),
    ('deform_conv2d', [*DEFORM_TYPES[:2], i32(5), DEFORM_TYPES[3]], DEFORM, i8(1, 4, 4, 6),
     'bias has shape'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'offset_groups': 1}, i8(1, 4, 4, 6),
     r'offset has shape .*expected \(1, 4, 4, 18\)'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'offset_groups': 3}, i8(1, 4, 4, 6),
     '3 offset groups of 4 channels'),
    ('deform_conv2d', [*DEFORM_TYPES, i8(1, 4, 4, 36)], DEFORM, i8(1, 4, 4, 6), 'mask has shape'),
    ('deform_conv2d', [*DEFORM_TYPES, i16(1, 4, 4, 18)], DEFORM, i8(1, 4, 4, 6), 'tensor of si8'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'fraction_bits': 9}, i8(1, 4, 4, 6),
     'fraction_bits is 9, expected 1 to 8'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'fraction_bits': 3}, i8(1, 4, 4, 6),
     'sample_bits is 7, expected 0 to 6'),
    ('deform_conv2d', DEFORM_TYPES, {**DEFORM, 'offset_multiplier': [9]}, i8(1, 4, 4, 6),
     'offset_multiplier .*neither 0 nor in'),
    ('conv_transpose2d', [i8(1, 5, 6, 4), i8(6, 4, 4, 4), i32(6)], CONV, i8(1, 9, 12, 6),
     r'expected \(1, 10, 12, 6\)'),
    ('conv_transpose2d', [i8(1, 5, 6, 4), i8(6, 4, 4, 3), i32(6)], CONV, i8(1, 10, 12, 6),
     '4 channels, weight 3'),
    ('conv_transpose2d', [i8(1, 5, 6, 4), i8(6, 4, 4, 4), i32(6)],
     {**CONV, 'pad': [0, 0, -2, 0]}, i8(1, 14, 14, 6), 'a stride or more behind'),
    ('conv_transpose2d', [i8(1, 1, 6, 4), i8(6, 4, 4, 4), i32(6)],
     {**CONV, 'pad': [2, 0, 2, 0]}, i8(1, 0, 14, 6), 'leaves nothing'),
    ('linear', [i8(2, 5), i8(6, 4), i32(6)], RQ, i8(2, 6), '5 channels'),
    ('matmul', [i8(3, 2, 4), i8(2, 4, 6)], RQ, i8(3, 2, 6), 'cannot be multiplied'),
    ('add', [i8(2, 3), i8(2, 4)], ADD, i8(2, 4), 'broadcast'),
    ('add', [tensor_type((2, 3), 'f32')] * 2, ADD, i8(2, 3), 'tensor of si8'),
    ('relu', [i8(2, 3)], {}, tensor_type((2, 3), 'si8', 0.25), 'elements'),
    ('table', [i8(2, 5)], dict(entries=list(range(255))), i8(2, 5), '256 entries'),
    ('table', [i16(2, 5)], dict(entries=list(range(256))), i8(2, 5), 'segment'),
    ('table', [i16(2, 5)], {**SEGMENTS, 'segment_shift': [7] * 7 + [6]}, i16(2, 5),
     'tile the si16 range'),
    ('table', [i16(2, 5)], {**SEGMENTS, 'entries': [0]}, i16(2, 5), 'guard'),
    ('reduce_sum', [i8(2, 5)], dict(dims=[2], **RQ), i8(2, 5), 'dim 2'),
    ('reduce_max', [i8(2, 5)], dict(dims=[1, 1]), i8(2, 1), 'repeat'),
    ('avg_pool', [i8(1, 3, 8, 4)], dict(kernel=[4, 2], stride=[2, 2], **RQ), i8(1, 0, 4, 4),
     'larger than the input'),
    ('avg_pool', [i8(1, 9, 8, 4)], dict(kernel=[3, 2], stride=[2, 2], **RQ), i8(1, 5, 4, 4),
     r'expected \(1, 4, 4, 4\)'),
    ('grid_sample', [i8(2, 9, 9, 4), i8(2, 3, 7, 2)], SAMPLE, i8(2, 3, 7, 4), 'tensor of si16'),
    ('grid_sample', [i8(2, 9, 9, 4), i16(2, 3, 7, 2)], {**SAMPLE, 'padding': 'reflect'},
     i8(2, 3, 7, 4), 'zeros or border'),
    ('resize', [i16(1, 2, 3, 4)], RESIZE, i16(1, 4, 6, 4), 'tensor of si8'),
    ('resize', [i8(1, 2, 3, 4)], RESIZE, i8(1, 4, 5, 4), r'expected \(1, 4, 6, 4\)'),
    ('resize', [i8(1, 2, 3, 4)], {**RESIZE, 'mode': 'bicubic'}, i8(1, 4, 6, 4), 'found bicubic'),
    ('resize', [i8(1, 2, 3, 4)], {**RESIZE, 'fraction_bits': 12}, i8(1, 4, 6, 4),
     'found 12 and 20'),
    ('resize', [i8(1, 2, 3, 4)], {**RESIZE, 'size': [0, 6]}, i8(1, 0, 6, 4), 'not positive'),
    ('topk', [i16(1, 9)], dict(k=10, dim=1), [i16(1, 10), i32(1, 10)], 'k = 10'),
    ('gather', [i16(1, 9, 4), i32(2, 3, 4)], dict(dim=1), i16(2, 3, 4), 'indices'),
    ('positive', [i16(9, 4)], {}, i1(9, 1), 'shape'),
    ('not_negative', [i16(9, 4)], {}, i16(9, 4), 'i1'),
    ('where', [i8(9, 1), i16(9, 4)], dict(fill=0), i16(9, 4), 'tensor of i1'),
    ('where', [i1(9, 1), i16(9, 4)], {}, i16(9, 4), 'fill is given exactly'),
    ('where', [i1(9, 1), i16(9, 4), i16(9, 4)], dict(fill=0), i16(9, 4), 'fill is given exactly'),
    ('where', [i1(9, 1), i16(9, 4), i8(9, 4)], {}, i16(9, 4), 'elements'),
    ('max', [i8(2, 3), i16(2, 3)], {}, i16(2, 3), 'elements'),
    ('min', [i8(2, 3), tensor_type((2, 3), 'si8', 0.25)], {}, i8(2, 3), 'elements'),
    ('max', [i8(2, 3), i8(2, 4)], {}, i8(2, 4), 'broadcast'),
    ('flip', [i8(2, 5)], dict(dims=[2]), i8(2, 5), 'dim 2'),
    ('roll', [i8(2, 5)], dict(shifts=[1], dims=[0, 1]), i8(2, 5), '1 shifts'),
    ('roll', [i8(2, 5)], dict(shifts=[1, 1], dims=[1, 1]), i8(2, 5), 'repeat'),
    ('reshape', [i8(2, 6)], dict(shape=[3, 5]), i8(3, 5), 'cannot reshape'),
    ('reshape', [i8(2, 6)], dict(shape=[3, 4]), i16(3, 4), 'elements'),
    ('transpose', [i8(2, 6)], dict(dims=[0, 0]), i8(2, 2), 'permute'),
    ('slice', [i8(5, 6)], dict(begin=[1, 0], end=[9, 6], step=[1, 1]), i8(8, 6), 'do not slice'),
    ('concat', [i8(5, 6), tensor_type((5, 6), 'si8', 0.1)], dict(dim=1), i8(5, 12), 'elements'),
    ('tile', [i8(5, 6)], dict(multiples=[2]), i8(10, 6), 'rank 2'),
]


@pytest.mark.parametrize('name, types, attrs, result, reason', REFUSED)
def test_an_invalid_operation_is_refused_with_the_reason_and_the_site(name, types, attrs, result,
                                                                      reason):
    with pytest.raises(BpuError, match=reason) as caught:
        build(name, types, attrs, result)
    assert 'neck/here' in str(caught.value)


def test_a_constant_of_another_width_than_its_type_is_refused():
    with pytest.raises(BpuError, match='value holds i16'):
        build('constant', [], dict(value=np.zeros(3, np.int16)), i8(3))


def test_quantized_text_needs_no_builder():
    text = '''\
func.func @forward(%x: tensor<2x!qnt.uniform<si8:f32, 0.1>> {hbir.name = "x"})
    -> (tensor<2x!qnt.uniform<si16:f32, 0.1>> {hbir.name = "y"}) {
  %y = "bpu.requantize"(%x) <{multiplier = array<i64: 16384>, relu = false, \
shift = array<i64: 14>}> : (tensor<2x!qnt.uniform<si8:f32, 0.1>>) -> \
tensor<2x!qnt.uniform<si16:f32, 0.1>>
  return %y : tensor<2x!qnt.uniform<si16:f32, 0.1>>
}
'''
    assert '!qnt.uniform<si8:f32, 0.1>' in print_text(parse_text(text))
    with pytest.raises(BpuError, match='model.int.mlir:3: bpu.requantize'):
        parse_text(text.replace('16384', '163840'), 'model.int.mlir')
