"""The text form: published texts, round trips, large constants, errors with their line."""
import time

import numpy as np
import pytest
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, FloatAttr, f64, i64

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.attributes import make_attribute
from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, constant_array, operations, site_of
from mmdet_bpu.hbir.number_attributes import integer_array
from mmdet_bpu.hbir.text import parse_text, print_text, read_text, write_text
from mmdet_bpu.hbir.types import tensor_type, value_type

FAKE_QUANT_CONV = '''\
func.func @main(%arg0: tensor<1x32x32x3xf32>, %arg1: tensor<4x1x1x3xf32> {hbir.id = 2 : i64, \
hbir.name = "weight"}) -> (tensor<1x32x32x4xf32>) {
  %0 = "qnt.const_fake_quant"(%arg0) <{bits = 8 : i64, illegal = true, max = [1.270000e+01], \
min = [-1.280000e+01], narrowRange = false}> : (tensor<1x32x32x3xf32>) -> tensor<1x32x32x3xf32>
  %2 = "hbir.conv2d"(%0, %arg1) <{dilation = [1, 1], groupNum = 1 : i64, pad = [0, 0, 0, 0], \
stride = [1, 1]}> : (tensor<1x32x32x3xf32>, tensor<4x1x1x3xf32>) -> tensor<1x32x32x4xf32>
  return %2 : tensor<1x32x32x4xf32>
}
'''


def module_of(array, dialect='hbir', **options):
    builder = OpBuilder([], dialect)
    return builder.finish([('out', builder.constant(array, **options))])


def only_constant(module):
    return constant_array(next(operations(module)))


def test_text_as_the_vendor_prints_it_parses_and_keeps_its_attributes():
    fake_quant, conv = operations(parse_text(FAKE_QUANT_CONV))
    assert attrs_of(fake_quant) == dict(bits=8, illegal=True, max=[12.7], min=[-12.8],
                                        narrowRange=False)
    assert attrs_of(conv) == dict(dilation=[1, 1], groupNum=1, pad=[0, 0, 0, 0], stride=[1, 1])


def test_lists_print_without_element_types():
    text = print_text(parse_text(FAKE_QUANT_CONV))
    assert 'max = [12.7], min = [-12.8]' in text
    assert 'stride = [1, 1]' in text


@pytest.mark.parametrize('attribute', ['#hbdk<InterpolationMode bilinear>'])
def test_keyword_attributes_print_as_published(attribute):
    text = FAKE_QUANT_CONV.replace('"hbir.conv2d"', '"hbir.grid_sample"').replace(
        'dilation = [1, 1], groupNum = 1 : i64, pad = [0, 0, 0, 0], stride = [1, 1]',
        f'alignCorner = false, mode = {attribute}, padValue = 0 : i64')
    module = parse_text(text)
    assert f'mode = {attribute}' in print_text(module)
    assert attrs_of(list(operations(module))[1])['mode'] == 'bilinear'


@pytest.mark.parametrize('scale', [0.1, 1e-5, 3e10, 2.0 ** -20, 0.20284509658813477])
def test_the_scale_of_a_quantized_type_comes_back_as_the_same_float32(scale):
    module = module_of(np.zeros((2, 3), np.int8), 'bpu', scale=scale)
    again = parse_text(print_text(module))
    found = value_type(next(operations(again)).results[0])
    assert found == ((2, 3), 'si8', float(np.float32(scale)))


def test_scales_along_an_axis_come_back():
    scales = np.linspace(0.01, 0.5, 7).astype(np.float32)
    module = module_of(np.zeros((7, 3), np.int8), 'bpu', scale=scales, axis=0)
    found = value_type(next(operations(parse_text(print_text(module)))).results[0])
    np.testing.assert_array_equal(found.scale, scales.astype(np.float64))


@pytest.mark.parametrize('dtype', ['f4', 'i1', 'i2', 'i4', '?'])
@pytest.mark.parametrize('shape', [(), (1,), (3, 4), (100,), (101,), (4, 1, 33), (0,)])
def test_constants_of_any_size_come_back_bit_for_bit(dtype, shape):
    rng = np.random.default_rng(0)
    data = (rng.normal(size=shape) * 50).astype(dtype)
    for array in (data, np.full(shape, 1, dtype)):
        module = module_of(array, 'hbir' if dtype == 'f4' else 'bpu')
        text = print_text(module)
        again = parse_text(text)
        assert print_text(again) == text
        assert only_constant(again).tobytes() == array.tobytes()
        assert only_constant(again).shape == shape


def test_floats_that_are_not_numbers_keep_their_bits():
    data = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    assert only_constant(parse_text(print_text(module_of(data)))).tobytes() == data.tobytes()


def test_a_mask_is_packed_to_bits_lowest_first_as_in_mlir():
    mask = np.zeros(104, bool)
    mask[[0, 9]] = True
    assert 'dense<"0x0102' + '00' * 11 + '"> : tensor<104xi1>' in print_text(module_of(mask))


def test_sites_survive_as_locations_in_hbir_and_as_a_property_in_bpu():
    for name, dtype in (('hbir.relu', 'f32'), ('bpu.relu', 'si8')):
        type_ = tensor_type((1, 4), dtype)
        builder = OpBuilder([('x', type_)])
        value = builder.op(name, builder.inputs, {}, type_, site='encoder.0/relu.1')
        module = parse_text(print_text(builder.finish([('y', value)])))
        assert site_of(next(operations(module))) == 'encoder.0/relu.1'


@pytest.mark.parametrize('find, replace, line, reason', [
    ('pad = [0, 0, 0, 0]', 'pad = [0, 0]', 3, 'a list of i64 with 4 elements'),
    ('return %2', 'return %9', 6, 'not defined'),
    ('hbir.conv2d', 'hbir.conv9', 3, 'hbir.conv9'),
    ('max = [1.270000e+01]', 'max = [1.0, 2.0]', 2, 'expected 1 values'),
    ('stride', 'strides', 3, 'strides'),
    ('%2 = "hbir', '%2 = hbir', 3, ''),
])
def test_an_error_names_file_line_and_reason(find, replace, line, reason):
    with pytest.raises(BpuError) as caught:
        parse_text(FAKE_QUANT_CONV.replace(find, replace), 'model.mlir')
    assert str(caught.value).startswith(f'model.mlir:{line}:')
    assert reason in str(caught.value)


@pytest.mark.parametrize('literal', ['"0xAB"', '"0xABC"', '"zz"', '[1.0, 2.0]', '(1.0, 2.0, 3.0)',
                                     ''])
def test_a_constant_whose_data_do_not_fit_its_type_is_refused(literal):
    text = ('func.func @main() -> tensor<3xf32> {\n  %0 = "hbir.constant"() <{values = '
            f'dense<{literal}> : tensor<3xf32>}}> : () -> tensor<3xf32>\n'
            '  return %0 : tensor<3xf32>\n}')
    with pytest.raises(BpuError, match='<text>:2:'):
        parse_text(text)


def test_files_hold_the_same_text(tmp_path):
    module = module_of(np.arange(500, dtype=np.int16), 'bpu', scale=0.5)
    write_text(module, tmp_path / 'a.mlir')
    assert (tmp_path / 'a.mlir').read_text() == print_text(module)
    assert print_text(read_text(tmp_path / 'a.mlir')) == print_text(module)


def test_a_missing_file_and_a_truncated_one_are_refused_by_name(tmp_path):
    with pytest.raises(BpuError, match='gone.mlir'):
        read_text(tmp_path / 'gone.mlir')
    path = tmp_path / 'cut.mlir'
    path.write_text(FAKE_QUANT_CONV[:-40])
    with pytest.raises(BpuError, match=r'cut.mlir:\d+'):
        read_text(path)


def test_a_constant_cut_off_in_its_digits_is_refused_at_once():
    text = print_text(module_of(np.arange(50000, dtype=np.int16), 'bpu'))
    with pytest.raises(BpuError, match='<text>:'):
        parse_text(text[:len(text) // 2])


def test_ten_million_weights_print_and_parse_in_seconds():
    data = np.random.default_rng(0).integers(-128, 127, (10, 1000, 1000), np.int8)
    builder = OpBuilder([], 'bpu')
    values = [('c%d' % index, builder.constant(part)) for index, part in enumerate(data)]
    module = builder.finish(values)
    start = time.perf_counter()
    again = parse_text(print_text(module))
    assert time.perf_counter() - start < 10
    np.testing.assert_array_equal(only_constant(again), data[0])


def test_a_number_of_a_type_that_cannot_be_written_is_refused():
    text = FAKE_QUANT_CONV.replace('max = [1.270000e+01]', 'max = [1.270000e+01 : f80]')
    assert text != FAKE_QUANT_CONV
    with pytest.raises(BpuError, match='<text>:2:'):
        parse_text(text)


def test_lists_of_numbers_are_what_xdsl_makes_of_them():
    floats, whole = [0.1, -2.0, 1e300, float('inf')], [0, -1, 2**63 - 1, 2**63, 2**64 - 1]
    assert make_attribute('f64s', np.array(floats)) == make_attribute('f64s', floats) == ArrayAttr(
        FloatAttr(value, f64) for value in floats)
    assert integer_array(whole) == DenseArrayBase.from_list(i64, whole)
    with pytest.raises(BpuError, match='expected array'):
        make_attribute('ints', [1, True])


def test_a_type_that_is_written_again_is_read_once():
    module = parse_text(FAKE_QUANT_CONV)
    fake_quant, _ = operations(module)
    assert fake_quant.operands[0].type is fake_quant.results[0].type
    assert parse_text(FAKE_QUANT_CONV.replace('1x32', '1x 32')).is_structurally_equivalent(module)


@pytest.mark.parametrize('string', ['0x00\\n', '0xZZ', '0x0\n0', '0x00\\22', '0x0'])
def test_digits_that_are_none_are_refused(string):
    text = print_text(module_of(np.arange(200, dtype=np.int8), 'bpu'))
    digits = text[text.index('0x'):text.index('">')]
    with pytest.raises(BpuError, match='<text>:[2-4]:'):
        parse_text(text.replace(digits, string))
