"""Findings: what a march refuses, what it only warns about, and where."""
import numpy as np
import pytest

from mmdet_bpu.compiler.legality import check_program, refuse_errors, summarize
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.types import tensor_type


def only(findings):
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def test_a_plain_detector_is_legal_on_nash_e(detector):
    assert check_program(detector, 'nash-e') == []


def test_nash_m_adds_a_note_on_where_its_limits_come_from(detector):
    finding = only(check_program(detector, 'nash-m'))
    assert finding.level == 'note' and 'nash-e' in finding.found


def test_an_unknown_march_is_refused(detector):
    with pytest.raises(BpuError, match='unknown march'):
        check_program(detector, 'nash-x')


def test_int16_by_int16_convolution_is_an_error_with_its_site(maker):
    image = maker.input('image', (1, 8, 8, 4), 'si16')
    out = maker.conv(image, 4)
    weight = maker.instructions[0].inputs[1]
    maker.values[weight].type = maker.values[weight].type.__class__((4, 3, 3, 4), 'si16', 0.1)
    finding = only(check_program(maker.finish(out), 'nash-e'))
    assert (finding.level, finding.op, finding.site) == (
        'error', 'hbir.conv2d', 'backbone.0/conv2d.0')
    assert 'cannot both be si16' in finding.rule


@pytest.mark.parametrize('changes, rule', [
    (dict(dilation=[19, 1]), 'dilation in [1, 18]'),
    (dict(stride=[257, 1]), 'stride in [1, 256]'),
    (dict(stride=[2, 2], dilation=[2, 2]), 'stride where dilated in [1, 1]'),
    (dict(pad=[300, 0, 300, 0]), 'pad in [-inf, 256]'),
])
def test_convolution_attributes_out_of_range_are_errors(maker, changes, rule):
    out = maker.conv(maker.input('image', (1, 8, 8, 4)), 4, **changes)
    finding = only(check_program(maker.finish(out), 'nash-e'))
    assert finding.level == 'error' and finding.rule == rule


def transposed(maker, kernel=4, channels=4, x=(1, 8, 8, 4), **changes):
    attrs = dict(stride=[2, 2], pad=[1] * 4, dilation=[1, 1], groups=1, multiplier=[16384],
                 shift=[14], relu=False)
    weight = maker.integers((channels, kernel, kernel, x[3]))
    return maker.op('conv_transpose2d', [maker.input('image', x), weight,
                                         maker.integers((channels, ), 'int32')],
                    (1, 16, 16, channels), **{**attrs, **changes})


def test_a_transposed_convolution_within_its_limits_is_legal(maker):
    assert check_program(maker.finish(transposed(maker)), 'nash-e') == []


@pytest.mark.parametrize('changes, rule', [
    (dict(stride=[15, 1]), 'stride in [1, 14]'), (dict(dilation=[2, 1]), 'dilation in [1, 1]'),
    (dict(pad=[1, 1, -1, 0]), 'pad in [0, 256]'), (dict(kernel=15), 'KH, KW in [1, 14]'),
    (dict(kernel=1), 'KH*KW in [2, inf]'), (dict(channels=2049), 'weight N, C in [1, 2048]'),
    (dict(x=(129, 8, 8, 4)), 'N in [1, 128]'),
    (dict(kernel=14, x=(1, 8, 8, 400)), 'KH*KW*C in [1, 65536]'),
])
def test_a_transposed_convolution_beyond_a_limit_is_an_error(maker, changes, rule):
    finding = only(check_program(maker.finish(transposed(maker, **changes)), 'nash-e'))
    assert (finding.level, finding.op, finding.rule) == ('error', 'hbir.convtranspose', rule)


def test_a_kernel_larger_than_31_is_an_error(maker):
    out = maker.conv(maker.input('image', (1, 64, 64, 1)), 1, kernel=33)
    assert 'KH, KW in [1, 31]' in only(check_program(maker.finish(out), 'nash-e')).rule


def test_many_output_channels_are_allowed_only_in_the_last_convolution(maker):
    inner = maker.conv(maker.input('image', (1, 2, 2, 1)), 8193, kernel=1)
    out = maker.conv(inner, 1, kernel=1)
    findings = check_program(maker.finish(out), 'nash-e')
    assert 'C_out of an inner conv' in findings[0].rule
    last = check_program(maker.finish(inner), 'nash-e')
    assert not any('C_out' in finding.rule and finding.site.startswith('backbone.0')
                   for finding in last)


def test_a_wide_linear_layer_is_a_warning_because_the_vendor_ships_wider_ones(maker):
    x = maker.input('x', (1, 10, 256))
    out = maker.op('linear', [x, maker.integers((1024, 256)), maker.integers((1024,), 'int32')],
                   (1, 10, 1024))
    finding = only(check_program(maker.finish(out), 'nash-e'))
    assert finding.level == 'warning' and finding.found == '262144'


def test_add_sub_mul_want_one_type_on_both_sides(maker):
    lhs, rhs = maker.input('a', (4,), 'si8'), maker.input('b', (4,), 'si16')
    for op in ('add', 'sub', 'mul'):
        maker.op(op, [lhs, rhs], (4,), 'si16')
    findings = check_program(maker.finish(), 'nash-e')
    assert [finding.op for finding in findings] == ['hbir.add', 'hbir.sub', 'hbir.mul']
    assert all(finding.level == 'error' and 'one type' in finding.rule for finding in findings)


def test_topk_is_not_refused_but_named_as_running_elsewhere(maker):
    scores = maker.input('scores', (1, 100), 'si16')
    maker.op('topk', [scores], (1, 10), 'si16', 'query/topk.0', k=10, dim=1)
    finding = only(check_program(maker.finish(), 'nash-e'))
    assert (finding.level, finding.site, finding.unit) == (
        'warning', 'query/topk.0', 'the scalar unit')


@pytest.mark.parametrize('rows, march, levels', [
    (4000, 'nash-e', []), (22223, 'nash-p', ['warning']), (40000, 'nash-e', ['warning'] * 2)])
def test_a_gather_over_too_many_rows_is_reported_with_its_place(maker, rows, march, levels):
    data = maker.input('memory', (1, rows, 256), 'si8')
    indices = maker.input('indices', (1, 300, 256), 'si32')
    maker.op('gather', [data, indices], (1, 300, 256), 'si8', 'query/gather.0', dim=1)
    findings = [f for f in check_program(maker.finish(), march) if f.level != 'note']
    assert [finding.level for finding in findings] == levels
    assert all(f.site == 'query/gather.0' and 'not wholly' in f.rule for f in findings)


def test_a_reduction_over_more_elements_than_the_unit_takes_is_an_error(maker):
    x = maker.input('x', (1, 32, 100, 167, 8), 'si16')
    maker.op('reduce_sum', [x], (1, 32, 1, 1, 1), 'si16', dims=[2, 3, 4],
             multiplier=[16384], shift=[14])
    assert 'reduced elements' in only(check_program(maker.finish(), 'nash-e')).rule


def test_a_table_has_the_limits_of_the_unary_functions(maker):
    maker.op('table', [maker.input('x', (4,), 'si32')], (4,), 'si8', entries=[0] * 256)
    finding = only(check_program(maker.finish(), 'nash-e'))
    assert finding.rule == 'input must be si8 or si16' and 'any unary function' in finding.source


def test_a_sampled_feature_must_be_int8_and_its_grid_int16(maker):
    feature = maker.input('feature', (8, 20, 20, 32), 'si16')
    grid = maker.input('grid', (8, 300, 4, 2), 'si8')
    maker.op('grid_sample', [feature, grid], (8, 300, 4, 32), 'si8')
    findings = check_program(maker.finish(), 'nash-e')
    assert [finding.rule for finding in findings] == ['input must be si8', 'grid must be si16']


@pytest.mark.parametrize('step, found', [([2**19, 256 << 20], '[0, 256]'),
                                         ([-(257 << 20), 2**20], '[-257, 1]')])
def test_a_resize_by_more_than_the_unit_takes_is_a_warning(maker, step, found):
    x = maker.input('x', (1, 32, 32, 4))
    maker.op('resize', [x], (1, 8, 8, 4), size=[8, 8], start=[0, 0], step=step, mode='nearest',
             position_bits=20, fraction_bits=0)
    finding = only(check_program(maker.finish(), 'nash-e'))
    assert (finding.level, finding.found) == ('warning', found)
    assert 'integer part of step in [-256, 255]' in finding.rule


def test_a_resize_takes_int8_only(maker):
    x = maker.input('x', (1, 4, 4, 4), 'si16')
    maker.op('resize', [x], (1, 8, 8, 4), 'si16', size=[8, 8], start=[0, 0], step=[2**19] * 2,
             mode='nearest', position_bits=20, fraction_bits=0)
    assert only(check_program(maker.finish(), 'nash-e')).rule == 'input must be si8'


def deformable(maker, dtype='si8', kernel=3, size=(20, 30), groups=1, **attrs):
    maps = groups * kernel**2
    x = maker.input('x', (1, *size, 8), dtype)
    offset = maker.input('o', (1, *size, 2 * maps), 'si16')
    weight, bias = maker.integers((8, kernel, kernel, 8)), maker.integers((8,), 'int32')
    attrs = dict(dict(stride=[1, 1], pad=[kernel // 2] * 4, dilation=[1, 1]), **attrs)
    maker.op('deform_conv2d', [x, weight, bias, offset, maker.input('m', (1, *size, maps))],
             (1, *size, 8), groups=1, offset_groups=groups, **attrs)
    return check_program(maker.finish(), 'nash-e')


def test_a_deformable_convolution_of_the_units_geometry_is_legal(maker):
    assert deformable(maker, groups=2) == []


@pytest.mark.parametrize('case, rule', [
    (dict(dtype='si16'), 'input must be si8'), (dict(stride=[2, 2]), 'stride in [1, 1]'),
    (dict(dilation=[1, 2]), 'dilation in [1, 1]'), (dict(groups=4), 'offset groups in [1, 2]'),
    (dict(kernel=9), 'KH, KW in [1, 8]'), (dict(size=(400, 300)), 'OH*KH*OW*KW in [1, 737280]'),
], ids=str)
def test_other_deformable_convolutions_run_partly_elsewhere(maker, case, rule):
    findings = deformable(maker, **case)
    finding = only([finding for finding in findings if finding.rule.startswith(rule)])
    assert 'not wholly on the BPU' in finding.rule
    assert {finding.level for finding in findings} == {'warning'}


def test_a_deformable_convolution_in_hbir_is_judged_by_its_planned_types():
    builder = OpBuilder([('x', tensor_type((1, 6, 6, 4), 'f32')),
                         ('offset', tensor_type((1, 6, 6, 18), 'f32')),
                         ('mask', tensor_type((1, 6, 6, 9), 'f32'))])
    x, offset, mask = (builder.fake_quant(value, bits=8, scale=0.1) for value in builder.inputs)
    weight = builder.fake_quant(builder.constant(np.ones((4, 3, 3, 4), np.float32)), bits=8,
                                scale=0.1)
    attrs = dict(stride=[2, 1], pad=[1] * 4, dilation=[1, 1], groupNum=1, offsetGroupNum=1,
                 useMask=True)
    y = builder.op('hbir.deform_conv2d', [x, weight, offset, mask], attrs,
                   tensor_type((1, 6, 6, 4), 'f32'), site='backbone/deform_conv2d.0')
    errors, warnings = check_program(builder.finish([('y', y)]), 'nash-e')
    assert errors.rule == 'offset must be si16' and errors.level == 'error'
    assert warnings.rule.startswith('stride in [1, 1]') and warnings.site.startswith('backbone')


def test_padding_of_a_pool_is_narrower_on_nash_p(maker):
    x = maker.input('x', (1, 32, 32, 4))
    maker.op('max_pool', [x], (1, 32, 32, 4), kernel=[11, 11], stride=[1, 1],
             pad=[-5, -5, 5, 5], dilation=[1, 1], ceil_mode=False)
    assert not check_program(maker.finish(), 'nash-e')
    assert any('pad in [-4, 256]' == f.rule for f in check_program(maker.finish(), 'nash-p'))


def test_errors_are_raised_with_op_site_and_source(maker):
    maker.op('add', [maker.input('a', (4,), 'si8'), maker.input('b', (4,), 'si16')], (4,),
             site='decoder.layers.1/add.3')
    findings = check_program(maker.finish(), 'nash-e')
    assert summarize(findings) == {'error': 1, 'warning': 0, 'note': 0}
    with pytest.raises(BpuError, match=r'hbir.add at decoder.layers.1/add.3.*row hbir.add'):
        refuse_errors(findings, 'nash-e')


def fake_quantized(op, bits=8, **attrs):
    builder = OpBuilder([('x', tensor_type((1, 4, 8), 'f32'))])
    x = builder.fake_quant(builder.inputs[0], bits=bits, scale=0.1)
    y = builder.op(op, [x], attrs, tensor_type((1, 4, 8), 'f32'), site='encoder/act.0')
    return builder.finish([('y', builder.fake_quant(y, bits=8, scale=0.1))])


def test_a_fake_quantized_module_is_checked_with_its_planned_types():
    assert check_program(fake_quantized('hbir.sigmoid', bits=16), 'nash-e') == []


def test_raw_softmax_has_no_integer_form_and_is_named_with_its_site():
    finding = only(check_program(fake_quantized('hbir.softmax', dim=-1), 'nash-e'))
    assert (finding.level, finding.site) == ('error', 'encoder/act.0')
    assert 'float16 only' in finding.rule


def test_planned_types_reach_an_op_through_data_movement():
    builder = OpBuilder([('a', tensor_type((4, 2), 'f32')), ('b', tensor_type((2, 4), 'f32'))])
    lhs = builder.fake_quant(builder.inputs[0], bits=8, scale=0.1)
    rhs = builder.fake_quant(builder.inputs[1], bits=16, scale=0.1)
    moved = builder.op('hbir.transpose', [rhs], dict(dims=[1, 0]), tensor_type((4, 2), 'f32'))
    total = builder.op('hbir.add', [lhs, moved], {}, tensor_type((4, 2), 'f32'), site='neck/add.0')
    finding = only(check_program(builder.finish([('y', total)]), 'nash-e'))
    assert finding.found == 'si8 and si16' and finding.site == 'neck/add.0'


def test_attributes_that_hbir_text_leaves_out_have_their_defaults():
    builder = OpBuilder([('x', tensor_type((1, 8, 8, 4), 'f32'))])
    weight = builder.fake_quant(builder.constant(np.ones((4, 3, 3, 4), np.float32)), bits=16,
                                scale=0.1)
    x = builder.fake_quant(builder.inputs[0], bits=16, scale=0.1)
    y = builder.op('hbir.conv2d', [x, weight], {}, tensor_type((1, 6, 6, 4), 'f32'))
    finding = only(check_program(builder.finish([('y', y)]), 'nash-e'))
    assert 'cannot both be si16' in finding.rule


def test_grouped_int16_convolution_takes_odd_strides_or_two(maker):
    x = maker.input('x', (1, 16, 16, 4), 'si16')
    out = maker.op('conv2d', [x, maker.integers((4, 3, 3, 1)), maker.integers((4,), 'int32')],
                   (1, 4, 4, 4), stride=[4, 4], pad=[1] * 4, dilation=[1, 1], groups=4,
                   multiplier=np.array([16384]), shift=np.array([20]), relu=False)
    assert 'odd or 2' in only(check_program(maker.finish(out), 'nash-e')).rule
