"""Deformable convolution under the template: offsets on a fixed scale, boxes that are sampled."""
import pytest
import torch
import torch.nn.functional as F
import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext)
from mmcv.ops import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import open_attention
from mmdet_bpu.models.deformable_convolution import OpenTOODHead
from mmdet_bpu.quantization import model_report, prepare, quantization_of
from mmdet_bpu.graph.deploy_graph import capture_detector
from mmdet_bpu.quantization.fold import fold_captured

SHAPE = (8, 12)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(3))
STEP = 2.0**-8


def pack(cls, channels=4):
    module = cls(channels, 6, 3, padding=1)
    nn.init.normal_(module.conv_offset.weight, std=0.1)
    return module


def prepared(toy, body, rules=(), **modules):
    model = toy(body, **modules)
    prepare(model, dict(input_shape=SHAPE, qconfig=list(rules),
                        calibration=dict(observer='minmax')))
    return model, {row['site']: row for row in model_report(model)}


def backbone(toy, cls, rules=()):
    return prepared(toy, lambda self, x: self.last(F.relu(self.dcn(F.relu(self.stem(x))))), rules,
                    stem=nn.Conv2d(3, 4, 1), dcn=pack(cls), last=nn.Conv2d(6, 2, 3))


@pytest.mark.parametrize('cls', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_offsets_are_int16_multiples_of_a_256th_of_a_px(toy, cls):
    model, report = backbone(toy, cls)
    row = report['dcn.conv_offset/conv2d.0']
    assert (row['dtype'], row['scale'], row['calibrated']) == ('int16', STEP, True)
    assert row['rule'] == 'template: offsets of a deformable convolution'
    assert quantization_of(model).quantizer(row['quantizer']).fixed
    kinds = ['input', 'relu', 'conv2d', 'sigmoid', 'relu', 'conv2d']
    if cls is DeformConv2dPack:
        kinds.remove('sigmoid')
    assert [row['op'] for row in report.values()] == kinds, 'none between sampling and relu'
    assert {row['dtype'] for row in report.values() if row['op'] != 'conv2d'} == {'int8'}


def test_training_samples_where_the_integers_will(toy, calibrated):
    """With all quantizers on, a position is a whole multiple of a 256th of a pixel."""
    model, _ = backbone(toy, DeformConv2dPack)
    seen = []
    model.dcn.conv_offset.weight.data.mul_(30)
    calibrated(model, IMAGE)
    quantizer = quantization_of(model).quantizer('dcn.conv_offset/conv2d.0')
    quantizer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(IMAGE)
    offsets = seen[0] * 256
    assert torch.equal(offsets, offsets.round()) and offsets.abs().max() > 256


def test_a_weight_is_on_its_grid_and_learns(toy, calibrated):
    model, _ = backbone(toy, ModulatedDeformConv2dPack)
    calibrated(model, IMAGE)
    output = model(IMAGE).sum()
    output.backward()
    for parameter in (model.dcn.weight, model.dcn.conv_offset.weight, model.stem.weight):
        assert parameter.grad.abs().sum() > 0
    with torch.no_grad():
        # Rounding the weights changes nothing: the forward has rounded them already.
        step = model.dcn.weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1) / 127
        before = model(IMAGE)
        model.dcn.weight.copy_((model.dcn.weight / step).round() * step)
        torch.testing.assert_close(model(IMAGE), before)


def test_a_factor_behind_the_offsets_goes_into_their_scale(toy):
    def body(self, x):
        return torch.relu(self.dcn(x, self.offset(x) * 0.25)) * 2

    _, report = prepared(toy, body, offset=nn.Conv2d(3, 18, 3, padding=1),
                         dcn=DeformConv2d(3, 4, 3, padding=1))
    assert report['offset/conv2d.0']['scale'] == STEP * 4


def test_computed_offsets_are_int16_back_to_the_product(toy):
    def body(self, x):
        points = self.points(x)
        return torch.relu(self.dcn(x, points.exp() - self.base)) * 2, points.exp()

    model = toy(body, points=nn.Conv2d(3, 18, 3, padding=1), dcn=DeformConv2d(3, 4, 3, padding=1))
    model.register_buffer('base', torch.ones(1, 18, 1, 1))
    prepare(model, dict(input_shape=SHAPE))
    report = {row['site']: row for row in model_report(model)}
    assert report['points/conv2d.0']['dtype'] == 'int16'
    offsets, = [row for row in report.values() if row['rule'].startswith('template: offsets')]
    assert (offsets['site'], offsets['dtype'], offsets['scale']) == ('/sub.0', 'int16', STEP)


def test_a_rule_about_something_else_keeps_the_scale(toy):
    rule = dict(op='conv2d', dtype='int16')
    _, report = backbone(toy, DeformConv2dPack, [rule])
    row = report['dcn.conv_offset/conv2d.0']
    assert (row['rule'], row['scale'], row['calibrated']) == ('qconfig[0]', STEP, True)


@pytest.mark.parametrize('rule', [dict(observer='mse'), dict(scale=0.01)], ids=str)
def test_a_rule_about_the_scale_of_offsets_counts(toy, rule):
    model, _ = backbone(toy, DeformConv2dPack, [dict(site='*conv_offset*', **rule)])
    quantizer = quantization_of(model).quantizer('dcn.conv_offset/conv2d.0')
    assert quantizer.dtype == 'int16' and quantizer.scale.item() != STEP
    assert quantizer.fixed == ('scale' in rule)


@pytest.mark.parametrize('rule, message', [
    (dict(site='*conv_offset*', dtype='int8'), 'gives the offset of dcn/deform_conv2d.0 int8: a '
     'deformable convolution takes it as int16'),
    (dict(op='sigmoid', dtype='int16'), 'gives the mask of dcn/deform_conv2d.0 int16: a '
     'deformable convolution takes it as int8')], ids=['offset', 'mask'])
def test_other_types_are_refused_before_training(toy, rule, message):
    with pytest.raises(BpuError, match=r'qconfig\[0\] ' + message):
        backbone(toy, ModulatedDeformConv2dPack, [rule])


def test_boxes_that_are_sampled_are_int16_on_both_sides(toy):
    """TOOD: a deformable convolution with weights of one is no product, but a part of the path."""
    def body(self, x):
        x = F.relu(self.stem(x))
        boxes = self.boxes(x).exp()
        return self.scores(x), OpenTOODHead.deform_sampling(None, boxes, self.offset(x))

    _, report = prepared(toy, body, stem=nn.Conv2d(3, 4, 1), boxes=nn.Conv2d(4, 4, 3, padding=1),
                         offset=nn.Conv2d(4, 8, 1), scores=nn.Conv2d(4, 2, 3))
    assert {site: row['dtype'] for site, row in report.items()} == {
        'image': 'int8', '/relu.0': 'int8', 'boxes/conv2d.0': 'int16', '/exp.0': 'int16',
        'offset/conv2d.0': 'int16', '/deform_conv2d.0': 'int16', 'scores/conv2d.0': 'int32'}


def test_a_convolution_that_makes_an_output_is_an_accumulator(toy):
    def body(self, x):
        return self.dcn(x)

    _, report = prepared(toy, body, dcn=pack(ModulatedDeformConv2dPack, 3))
    assert report['dcn/deform_conv2d.0']['dtype'] == 'int32'


@pytest.mark.parametrize('cls', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_a_batch_norm_behind_it_is_folded(toy, cls):
    model = toy(lambda self, x: self.norm(self.dcn(self.stem(x))), stem=nn.Conv2d(3, 4, 1),
                dcn=pack(cls), norm=nn.BatchNorm2d(6))
    norm = model.norm
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    open_attention(model)
    with torch.no_grad():
        expected = model(IMAGE)
        assert fold_captured(model, capture_detector(model, SHAPE)) == [('dcn', 'norm')]
        assert isinstance(model.norm, nn.Identity)
        torch.testing.assert_close(model(IMAGE), expected, atol=1e-5, rtol=1e-5)
    assert model.dcn.bias.requires_grad
