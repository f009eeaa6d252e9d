"""Rules before the template, and the template on a real detector."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import model_report, prepare, quantization_of
from mmdet_bpu.quantization.rules import check_rules

SHAPE = (4, 6)


def rows(toy, rules, body=None):
    """{site: report row} of a toy: conv -> exp -> conv."""
    body = body or (lambda self, x: self.b(torch.exp(self.a(x))))
    model = toy(body, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1))
    prepare(model, dict(input_shape=SHAPE, qconfig=rules, calibration=dict(observer='minmax')))
    return {row['site']: row for row in model_report(model)}, model


def test_without_rules_the_template_decides(toy):
    report, _ = rows(toy, [])
    assert {site: row['dtype'] for site, row in report.items()} == {
        'image': 'int8', 'a/conv2d.0': 'int8', '/exp.0': 'int16', 'b/conv2d.0': 'int32'}
    assert all(row['rule'].startswith('template') for row in report.values())


@pytest.mark.parametrize('last, body, dtype', [
    (nn.Conv2d(4, 2, 1), lambda last, x: last(x), 'int16'),
    (nn.Conv2d(4, 2, 1), lambda last, x: last(x).mul(3).sigmoid().flatten(1), 'int16'),
    (nn.Conv2d(4, 2, 1), lambda last, x: F.conv2d(last(x), torch.ones(2, 2, 3, 3)), 'int8'),
    (nn.Conv2d(4, 2, (1, 3)), lambda last, x: last(x), 'int8'),
    (nn.Conv2d(4, 2, 1, groups=2), lambda last, x: last(x), 'int8'),
    (nn.Linear(6, 2), lambda last, x: last(x), 'int8'),
], ids=['1 x 1', 'more behind it', 'a product behind it', '1 x 3', 'groups', 'linear'])
def test_features_that_a_1_x_1_convolution_makes_an_output_of_are_int16(toy, last, body, dtype):
    model = toy(lambda self, x: body(self.last, F.relu(self.stem(x))), stem=nn.Conv2d(3, 4, 3, padding=1),
                last=last)
    prepare(model, dict(input_shape=SHAPE))
    rows_of = {row['site']: row for row in model_report(model)}
    assert rows_of['/relu.0']['dtype'] == dtype
    assert (rows_of['/relu.0']['rule'] == 'template: input of a prediction') == (dtype == 'int16')


@pytest.mark.parametrize('body', [
    lambda self, x: self.a(x), lambda self, x: self.a(torch.relu(x[:, :, ::2])),
    lambda self, x: self.a(F.max_pool2d(x, 2))])
def test_a_picture_stays_int8(toy, body):
    report, _ = rows(toy, [], body)
    assert report['image']['dtype'] == 'int8' and report['a/conv2d.0']['dtype'] == 'int32'


def test_features_that_a_resize_reads_too_stay_int8(toy):
    def body(self, x):
        features = F.relu(self.a(x))
        return self.b(features), F.interpolate(features, scale_factor=2)

    row = rows(toy, [], body)[0]['/relu.0']
    assert row['dtype'] == 'int8' and 'the input of a prediction does not change' in row['rule']


def test_a_prediction_is_what_outputs_are_made_of_and_no_block_of_a_backbone(toy):
    """What a sampling takes from, and an identity that is added to a convolution, is none."""
    def body(self, x):
        features = F.relu(self.a(x))
        block = F.relu(self.b(features) + features)
        return block, F.grid_sample(self.b(block), torch.zeros(1, 2, 2, 2))

    report, _ = rows(toy, [], body)
    assert not [row for row in report.values() if row['rule'].endswith('input of a prediction')]


def test_the_first_rule_that_matches_wins(toy):
    report, _ = rows(toy, [dict(site='a/*', dtype='int16'), dict(op='conv2d', dtype='int8')])
    assert (report['a/conv2d.0']['dtype'], report['a/conv2d.0']['rule']) == ('int16', 'qconfig[0]')
    assert (report['b/conv2d.0']['dtype'], report['b/conv2d.0']['rule']) == ('int8', 'qconfig[1]')
    assert report['/exp.0']['rule'].startswith('template')


def test_rules_match_by_module_and_by_all_of_their_fields(toy):
    report, _ = rows(toy, [dict(module='Conv2d', site='b/*', dtype='int16')])
    assert report['b/conv2d.0']['dtype'] == 'int16'
    assert report['a/conv2d.0']['dtype'] == 'int8'


def test_rules_match_by_the_torch_function_too_inside_an_opened_one_as_well(toy):
    body = lambda self, x: torch.softmax(torch.bmm(self.a(x)[0], self.b(x)[0].mT), -1)  # noqa: E731
    rules = [dict(op='bmm', dtype='int16'), dict(op='reciprocal', dtype='int8')]
    report, _ = rows(toy, rules, body)
    ruled = {site: row['dtype'] for site, row in report.items() if 'qconfig' in row['rule']}
    assert ruled == {'/bmm.0': 'int16', '/softmax.reciprocal.0': 'int8'}


def test_a_rule_may_fix_the_scale_of_the_image(toy):
    report, model = rows(toy, [dict(site='image', scale=0.02)])
    assert report['image']['scale'] == pytest.approx(0.02) and report['image']['calibrated']
    assert report['image']['dtype'] == 'int8', 'what a rule does not set stays'
    assert quantization_of(model).quantizer('image').fixed


def test_a_rule_may_choose_the_observer(toy):
    _, model = rows(toy, [dict(op='exp', observer=dict(type='mse', bins=128))])
    assert quantization_of(model).quantizer('/exp.0').observer.statistics.bins == 128


@pytest.mark.parametrize('rule', [
    dict(site='neck.*', dtype='int16'), dict(op='matmul', dtype='int8'),
    dict(module='Linear', dtype='int8')], ids=str)
def test_a_rule_that_matches_nothing_is_an_error(toy, rule):
    with pytest.raises(BpuError, match=r'bpu.qconfig\[1\] matches nothing: .*lists the sites'):
        rows(toy, [dict(op='conv2d', dtype='int16'), rule])


@pytest.mark.parametrize('rule, message', [
    ('int8', r'bpu.qconfig\[0\]: expected a dict, found str'),
    (dict(site='*', dtyp='int8'), "unknown field 'dtyp'; known are site, module"),
    (dict(dtype='int8'), 'expected one of site, module, op to match by'),
    (dict(site='*'), 'sets nothing'),
    (dict(site='*', dtype='int4'), "dtype: expected one of int8, int16, int32, found 'int4'"),
    (dict(site='*', scale=0), 'scale: expected a positive number, .*found 0'),
    (dict(site='*', scale='auto'), "scale: expected a positive number, .*found 'auto'"),
    (dict(site='*', scale=float('nan')), 'scale: expected a positive number'),
    (dict(site='*', scale=float('inf')), 'scale: expected a positive number'),
    (dict(site='*', scale=True), 'scale: expected a positive number'),
    (dict(site=3, dtype='int8'), 'site: expected a str, found 3'),
    (dict(site='*', observer='msee'), "observer: .*'msee'"),
], ids=str)
def test_a_malformed_rule_is_named_with_its_field(rule, message):
    with pytest.raises(BpuError, match=message):
        check_rules([rule])


@pytest.mark.parametrize('site', ['a/conv2d.0', '/exp.0', 'image'])
def test_int32_where_integers_are_read_is_refused(toy, site):
    with pytest.raises(BpuError, match=rf'qconfig\[0\] gives {site} int32: .*use int16'):
        rows(toy, [dict(site=site, dtype='int32')])


def test_a_group_has_one_config_and_a_users_rule_goes_first(toy):

    def body(self, x):
        return self.b(torch.cat([self.a(x).exp(), x.sin()], 1)[:, :3])

    report, _ = rows(toy, [dict(op='exp', dtype='int16')], body)
    exp, sin = report['/exp.0'], report['/sin.0']
    assert exp['dtype'] == sin['dtype'] == 'int16'
    assert exp['quantizer'] == sin['quantizer']


@pytest.fixture(scope='module')
def twostage(small_detector):
    """{site: row} of the stock refine two-stage detector under the template."""
    model = prepare(small_detector('-refine-twostage'), dict(input_shape=(64, 64)))
    return {row['site']: row for row in model_report(model)}


def dtypes(report, part, op=None):
    """dtypes of all sites whose name holds ``part``."""
    found = {row['dtype'] for site, row in report.items()
             if part in site and (op is None or row['op'] == op)}
    assert found, f'no site with {part}'
    return found


def test_the_sampling_grid_is_int16_back_to_its_linear_layers(twostage):
    assert dtypes(twostage, 'sampling_offsets/linear') == {'int16'}
    assert dtypes(twostage, 'self_attn/add') | dtypes(twostage, 'cross_attn/add') >= {'int16'}
    grid = [row for row in twostage.values() if 'sampling grid' in row['rule']]
    assert grid and {row['dtype'] for row in grid} == {'int16'}


def test_sampled_values_are_int8(twostage):
    assert dtypes(twostage, 'value_proj/linear') == {'int8'}
    assert dtypes(twostage, 'grid_sample', 'grid_sample') == {'int8'}


def test_boxes_are_int16_from_the_last_linear_layer_to_the_output(twostage):
    boxes = [row for row in twostage.values() if 'bbox_preds' in row['rule']
             or (row['site'].startswith('bbox_head.reg_branches.1.4/'))]
    assert boxes and {row['dtype'] for row in boxes} == {'int16'}


def test_scores_are_int32_where_a_linear_layer_makes_them(twostage):
    assert dtypes(twostage, 'bbox_head.cls_branches.1/linear') == {'int32'}


def test_scores_of_the_top_k_are_int16(twostage):
    assert dtypes(twostage, 'bbox_head.cls_branches.2/linear') == {'int16'}


def test_the_inside_of_norms_is_int16_and_their_output_int8(twostage):
    norm = [row for site, row in twostage.items()
            if site.startswith('encoder.layers.0.norms.0/layer_norm')]
    assert len(norm) > 3
    assert [row['dtype'] for row in norm] == ['int16'] * (len(norm) - 1) + ['int8']


def test_softmax_is_int16_inside_and_int8_where_weights_meet_samples(twostage):
    softmax = [row for site, row in twostage.items()
               if site.startswith('encoder.layers.0.self_attn/softmax')]
    assert [row['dtype'] for row in softmax] == ['int16'] * (len(softmax) - 1) + ['int8']


def test_softmax_weights_of_a_matrix_product_are_int16(twostage):
    softmax = [row for site, row in twostage.items()
               if site.startswith('decoder.layers.0.self_attn.attn/softmax')]
    assert {row['dtype'] for row in softmax} == {'int16'}


def test_the_backbone_and_feed_forward_layers_are_int8(twostage):
    assert dtypes(twostage, 'backbone.') == {'int8'}
    assert dtypes(twostage, 'ffn.layers.0') == {'int8'}


def test_every_own_value_has_a_row_with_its_reason(twostage):
    assert all(row['rule'] and row['shape'] for row in twostage.values())
    assert twostage['image']['shape'] == [1, 3, 64, 64]
