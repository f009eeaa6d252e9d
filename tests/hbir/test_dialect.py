"""The hbir and qnt dialects: the published signatures, and what their verifier refuses."""
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, operations
from mmdet_bpu.hbir.camera_ops import VERIFY as CAMERA
from mmdet_bpu.hbir.dialect import parse_table
from mmdet_bpu.hbir.hbir_dialect import HBIR_OPS
from mmdet_bpu.hbir.hbir_ops import ELEMENT_CLASSES, TABLE
from mmdet_bpu.hbir.qnt_dialect import fake_quant_scale
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.hbir.types import tensor_type

FACTS = Path(__file__).parents[3] / 'shared' / 'hbir' / 'ops.json'
F32 = tensor_type((1, 8, 8, 4), 'f32')


def published_kind(kind):
    """Kind of the facts file in our notation."""
    kind = re.sub(r'array<(i64|f64)>( x(\d))?', lambda m: f'{m[1]}s' + (
        f'[{m[3]}]' if m[3] else ''), kind)
    return re.sub(r'#hbdk\.(\w+)Attr', r'#\1', kind)


@pytest.mark.skipif(not FACTS.exists(), reason='the published facts are not beside the checkout')
def test_the_table_holds_the_published_signatures_and_nothing_else():
    facts = json.loads(FACTS.read_text())
    table = parse_table(TABLE, ELEMENT_CLASSES)
    assert [f'hbir.{name}' for name in sorted(table)] == sorted(facts)
    for name, spec in table.items():
        fact = facts[f'hbir.{name}']
        for ours, theirs in ((spec.operands, fact['operands']), (spec.results, fact['results'])):
            assert [(value.name, set(value.elements), value.rank, value.may_be_none,
                     value.variadic) for value in ours] == [
                (key, set(value['elements']), value.get('rank'), value.get('optional', False),
                 value.get('variadic', False)) for key, value in theirs.items()], name
        assert {key: kind for key, (kind, _) in spec.attributes.items()} == {
            key: published_kind(kind) for key, kind in fact['attributes'].items()}, name


def test_the_dialect_has_every_published_operation():
    assert len(HBIR_OPS) == 116 + len(CAMERA)
    assert all(cls.name == name for name, cls in HBIR_OPS.items())


def build(name, types, attrs, result):
    builder = OpBuilder([(f'x{index}', type_) for index, type_ in enumerate(types)])
    value = builder.op(name, builder.inputs, attrs, result, site='here')
    values = value if isinstance(value, list) else [value]
    return builder.finish([(f'y{index}', value) for index, value in enumerate(values)])


CONV = dict(stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1], groupNum=1)
WEIGHT = tensor_type((6, 1, 1, 4), 'f32')
OUT = tensor_type((1, 8, 8, 6), 'f32')


@pytest.mark.parametrize('name, types, attrs, result', [
    ('hbir.conv2d', [F32, WEIGHT], CONV, OUT),
    ('hbir.conv2d', [F32, WEIGHT, tensor_type((6,), 'f32')], CONV, OUT),
    ('hbir.concat', [F32, F32, F32], dict(dim=3), tensor_type((1, 8, 8, 12), 'f32')),
    ('hbir.layernorm', [F32], dict(dims=[-1], eps=1e-5), F32),
    ('hbir.layernorm', [F32] + [tensor_type((4,), 'f32')] * 2, dict(dims=[-1], eps=1e-5), F32),
    ('hbir.clip', [F32], dict(min=0.5, max=6), F32),
    ('hbir.where', [tensor_type((1, 8, 8, 1), 'i1'), F32, F32], {}, F32),
    ('hbir.resize2d', [F32], dict(ratio=[2.0, 2.0], mode='bilinear'),
     tensor_type((1, 16, 16, 4), 'f32')),
    ('hbir.fake_cast', [F32], dict(dtype=F32.element_type), F32),
    ('hbir.roi_align', [F32, F32], dict(interpolateMode='avg', boxClipRatio=[0.1] * 4), F32),
    ('hbir.topk', [F32], dict(k=2, dim=3, largest=True, sorted=True),
     [tensor_type((1, 8, 8, 2), 'f32'), tensor_type((1, 8, 8, 2), 'si64')]),
])
def test_operations_of_every_kind_of_attribute_build_print_and_parse(name, types, attrs, result):
    module = build(name, types, attrs, result)
    text = print_text(module)
    assert print_text(parse_text(text)) == text
    found = attrs_of(next(operations(parse_text(text))))
    assert found == attrs
    assert all(type(found[key]) is type(value) for key, value in attrs.items())


@pytest.mark.parametrize('name, types, attrs, result, reason', [
    ('hbir.conv2d', [F32], CONV, OUT, 'operand'),
    ('hbir.conv2d', [F32] * 4, CONV, OUT, 'operand'),
    ('hbir.conv2d', [F32, tensor_type((6, 4), 'f32')], CONV, OUT, 'rank 4'),
    ('hbir.conv2d', [tensor_type((1, 8, 8, 4), 'si8'), WEIGHT], CONV, OUT, 'tensor of f64 or f32'),
    ('hbir.conv2d', [F32, WEIGHT], {**CONV, 'pad': [0, 0]}, OUT, '4 elements'),
    ('hbir.conv2d', [F32, WEIGHT], {**CONV, 'groupNum': 1.5}, OUT, 'expected i64'),
    ('hbir.conv2d', [F32, WEIGHT], {**CONV, 'groups': 1}, OUT, "no attribute 'groups'"),
    ('hbir.conv2d', [F32, WEIGHT], CONV, [OUT, OUT], 'result'),
    ('hbir.concat', [F32], {}, F32, 'dim'),
    ('hbir.where', [F32, F32, F32], {}, F32, 'tensor of i1'),
    ('hbir.grid_sample', [F32, F32], dict(mode=3), F32, '#hbdk<InterpolationMode'),
    ('hbir.layernorm', [F32, tensor_type((4,), 'f32')], {}, F32, 'operand'),
    ('hbir.relu6', [F32], {}, F32, 'unknown operation'),
])
def test_what_the_signature_does_not_allow_is_refused_with_the_site(name, types, attrs, result,
                                                                   reason):
    with pytest.raises(BpuError, match=reason) as caught:
        build(name, types, attrs, result)
    assert 'here' in str(caught.value)


def test_a_constant_has_the_type_of_its_values():
    text = print_text(build('hbir.constant', [], dict(values=np.zeros((2, 3), np.float32)),
                            tensor_type((2, 3), 'f32')))
    with pytest.raises(BpuError, match=r'values are of tensor<2x3xf32>'):
        parse_text(text.replace('tensor<2x3xf32>', 'tensor<3x2xf32>').replace(
            ' : tensor<3x2xf32>}>', ' : tensor<2x3xf32>}>'))


@pytest.mark.parametrize('bits', [8, 16, 32])
@pytest.mark.parametrize('narrow', [False, True])
def test_the_scale_of_a_fake_quantizer_comes_back_exactly(bits, narrow):
    scales = np.float32(np.random.default_rng(bits).uniform(1e-6, 10, 300))
    builder = OpBuilder([('x', tensor_type((300, 2), 'f32'))])
    one = builder.fake_quant(builder.inputs[0], bits, float(scales[0]), narrow=narrow)
    many = builder.fake_quant(one, bits, scales, axis=0, narrow=narrow)
    module = parse_text(print_text(builder.finish([('y', many)])))
    first, second = map(fake_quant_scale, operations(module))
    assert first == (bits, float(scales[0]), None)
    assert second[0] == bits and second[2] == 0
    np.testing.assert_array_equal(second[1], scales.astype(np.float64))


def test_a_fake_quantizer_has_the_range_of_its_integers():
    builder = OpBuilder([('x', F32)])
    module = builder.finish([('y', builder.fake_quant(builder.inputs[0], 8, 0.5))])
    assert attrs_of(next(operations(module))) == dict(
        bits=8, illegal=True, max=[63.5], min=[-64.0], narrowRange=False)


@pytest.mark.parametrize('arguments, reason', [
    (dict(bits=7, scale=0.1), 'bits is one of'),
    (dict(bits=8, scale=0.0), 'positive'),
    (dict(bits=8, scale=[0.1, np.nan], axis=0), 'positive'),
    (dict(bits=8, scale=[0.1, 0.2], axis=3), 'expected 4 values'),
    (dict(bits=8, scale=[0.1, 0.2], axis=4), 'axis 4'),
])
def test_a_fake_quantizer_without_a_meaning_is_refused(arguments, reason):
    builder = OpBuilder([('x', F32)])
    with pytest.raises(BpuError, match=reason):
        builder.fake_quant(builder.inputs[0], **arguments)


@pytest.mark.parametrize('element, reason', [
    ('!qnt.uniform<f32:f32, 0.1>', 'storage'),
    ('!qnt.uniform<si4:f32, 0.1>', 'si8, si16 or si32'),
    ('!qnt.uniform<si8:f32, 0.0>', 'positive'),
    ('!qnt.uniform<si8:f32, -1.0>', 'positive'),
    ('!qnt.uniform<si8:f32>', 'Expected'),
])
def test_a_quantized_type_without_a_meaning_is_refused(element, reason):
    text = (f'func.func @f(%0: tensor<2x{element}>) -> tensor<2x{element}> {{\n'
            f'  return %0 : tensor<2x{element}>\n}}')
    with pytest.raises(BpuError, match=reason):
        parse_text(text)
