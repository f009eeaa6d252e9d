"""Batch norms go into the convolutions before them; those that cannot stay one product each."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvWS2d
from mmdet.models.layers import FrozenBatchNorm2d
from torch import nn

from mmdet_bpu.graph.deploy_graph import deploy_graph
from mmdet_bpu.models.plain_norms import open_norms
from mmdet_bpu.quantization import model_report, prepare, quantization_of, set_quant_state
from mmdet_bpu.graph.deploy_graph import capture_detector
from mmdet_bpu.quantization.fold import fold_captured
from tests.toy_chain import run_chain

SHAPE = (8, 10)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


def filled(norm):
    """Statistics and parameters that hide nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm.eval()


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d])
@pytest.mark.parametrize('conv', [
    lambda: nn.Conv2d(3, 8, 3, bias=False), lambda: nn.ConvTranspose2d(3, 8, 4, 2, 1),
    lambda: nn.ConvTranspose2d(3, 9, 3, 2, 1, 1, groups=3, bias=False)],
    ids=['conv', 'transposed', 'grouped'])
def test_a_norm_behind_a_convolution_folds(toy, norm, conv):
    conv = conv()
    model = toy(lambda self, x: self.norm(self.conv(x)), conv=conv,
                norm=filled(norm(conv.out_channels)))
    expected = model(IMAGE)
    open_norms(model)
    assert fold_captured(model, capture_detector(model, SHAPE)) == [('conv', 'norm')]
    assert isinstance(model.norm, nn.Identity)
    torch.testing.assert_close(model(IMAGE), expected, atol=1e-5, rtol=1e-5)


def test_a_norm_without_parameters_folds(toy):
    model = toy(lambda self, x: self.norm(self.conv(x)), conv=nn.Conv2d(3, 4, 1),
                norm=filled(nn.BatchNorm2d(4, affine=False)))
    expected = model(IMAGE)
    assert fold_captured(model, capture_detector(model, SHAPE)) == [('conv', 'norm')]
    torch.testing.assert_close(model(IMAGE), expected, atol=1e-5, rtol=1e-5)


def shared_heads(self, x):
    """RTMDet's heads: one convolution on two levels, each with a norm of its own."""
    levels = [self.stem(x), self.stem(F.max_pool2d(x, 2))]
    maps = [F.relu(norm(self.conv(level))) for norm, level in zip(self.norms, levels)]
    return [self.out(level) for level in maps]


def shared_parts():
    return dict(stem=nn.Conv2d(3, 6, 1), conv=nn.Conv2d(6, 8, 3, padding=1),
                norms=nn.ModuleList(filled(nn.BatchNorm2d(8)) for _ in range(2)),
                out=nn.Conv2d(8, 4, 3, padding=1))


@pytest.mark.parametrize('body, parts', [
    (shared_heads, shared_parts()),
    (lambda self, x: self.norm(self.conv(x)),
     dict(conv=ConvWS2d(3, 4, 3), norm=filled(nn.BatchNorm2d(4)))),
    (lambda self, x: self.norm(self.conv(x)) + self.conv(x),
     dict(conv=nn.Conv2d(3, 4, 3), norm=filled(nn.BatchNorm2d(4)))),
    (lambda self, x: self.norm(F.max_pool2d(x, 2)), dict(norm=filled(nn.BatchNorm2d(3)))),
    (lambda self, x: self.norm(self.conv(x)),
     dict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4, track_running_stats=False))),
], ids=['shared', 'standardised', 'read twice', 'pool', 'no statistics'])
def test_what_cannot_take_a_norm_in_is_left_alone(toy, body, parts):
    model = toy(body, **parts)
    before = copy.deepcopy(model.state_dict())
    assert fold_captured(model, capture_detector(model, SHAPE)) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_norm_that_stays_is_one_product_with_its_relu(toy, calibrated, tmp_path):
    chain = run_chain(toy(shared_heads, **shared_parts()), IMAGE, calibrated, tmp_path)
    norms = [i for i in chain.instructions if 'batch_norm' in i.site]
    assert [(i.op, i.attrs['groups'], i.attrs['relu']) for i in norms] == [('bpu.conv2d', 8, 1)] * 2
    assert chain.report['conv/conv2d.0']['dtype'] == 'int16', 'channels of different ranges'
    assert chain.report['/relu.0']['dtype'] == 'int8'
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings


def test_a_norm_behind_a_concat_leaves_what_it_reads_int8(toy, calibrated, tmp_path):

    def body(self, x):
        joined = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        return self.out(F.relu(self.norm(joined)))

    model = toy(body, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 3, padding=1),
                norm=filled(nn.BatchNorm2d(8)), out=nn.Conv2d(8, 2, 3, padding=1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    assert {row['dtype'] for site, row in chain.report.items() if 'out' not in site} == {'int8'}
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings


def test_in_training_a_norm_that_stays_keeps_its_statistics_and_learns(toy, calibrated):
    model = toy(shared_heads, **shared_parts())
    calibrated(prepare(model, dict(input_shape=SHAPE)), IMAGE)
    with torch.no_grad():
        expected = model(IMAGE)
    statistics = model.norms[0].running_mean.clone()
    model.train()
    set_quant_state(model, 'quantize')
    outputs = model(IMAGE)
    for output, reference in zip(outputs, expected):
        torch.testing.assert_close(output, reference, atol=1e-6, rtol=0)
    sum(output.sum() for output in outputs).backward()
    assert torch.equal(model.norms[0].running_mean, statistics)
    for norm in model.norms:
        assert norm.weight.grad.abs().sum() > 0 and norm.bias.grad.abs().sum() > 0


def test_a_frozen_norm_that_stays_has_the_same_sites_with_gradients(toy, calibrated):
    model = toy(lambda self, x: self.norm(F.max_pool2d(self.conv(x), 2)), conv=nn.Conv2d(3, 3, 1),
                norm=filled(FrozenBatchNorm2d(3)))
    expected = model(IMAGE)
    prepare(model, dict(input_shape=SHAPE))
    torch.testing.assert_close(model(IMAGE), expected, atol=1e-6, rtol=1e-6)
    calibrated(model, IMAGE)
    with torch.no_grad():
        quantized = model(IMAGE)
    model.train()
    torch.testing.assert_close(model(IMAGE), quantized, atol=0, rtol=0)
    assert not model.norm.training and not model.norm.weight.requires_grad


def test_a_synchronised_norm_that_stays_is_a_plain_one_that_learns(toy):
    shared = filled(nn.SyncBatchNorm(3, eps=1e-3, momentum=0.2))
    shared.bias.requires_grad_(False)
    model = toy(lambda self, x: self.twin(self.norm(F.max_pool2d(x, 2))), norm=shared, twin=shared)
    expected = model(IMAGE)
    prepare(model, dict(input_shape=SHAPE))
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert model.norm is model.twin and (model.norm.eps, model.norm.momentum) == (1e-3, 0.2)
    assert model.norm.weight.requires_grad and not model.norm.bias.requires_grad
    torch.testing.assert_close(model(IMAGE), expected, atol=1e-6, rtol=1e-6)


def test_a_transposed_neck_has_weights_on_a_grid_per_output_channel(toy, calibrated, tmp_path):
    """CenterNet's neck: a transposed convolution, a norm, a relu, twice."""

    def body(self, x):
        x = F.relu(self.norm_a(self.a(x)))
        return self.out(F.relu(self.norm_b(self.b(x)) + self.side(x)))

    model = toy(body, a=nn.ConvTranspose2d(3, 8, 4, 2, 1, bias=False),
                norm_a=filled(nn.BatchNorm2d(8)),
                b=nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2), norm_b=filled(nn.BatchNorm2d(8)),
                side=nn.ConvTranspose2d(8, 8, 2, 2), out=nn.Conv2d(8, 2, 3, padding=1))
    with torch.no_grad():  # output channels of very different sizes
        model.a.weight.mul_(torch.logspace(-2, 1, 8).view(1, 8, 1, 1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    assert chain.kinds == ['conv_transpose2d'] * 3 + ['conv2d', 'transpose']
    assert chain.comparison['max_lsb'] <= 1
    assert [finding.rule for finding in chain.findings] == []
    first = chain.instructions[0]
    assert first.attrs['relu'] and len(first.attrs['multiplier']) == 8
    # Which one scale for all could not give: the channels differ by a factor of 1000.
    weight = chain.program.values[first.inputs[1]].data
    assert weight.shape == (8, 4, 4, 3) and (abs(weight.astype(int)).max((1, 2, 3)) == 127).all()
    assert not any('norm' in row['site'] for row in model_report(model))
    _, graph = deploy_graph(model, SHAPE)
    assert [op.kind for op in graph.ops].count('conv_transpose2d') == 3
    assert quantization_of(model).folded == [('a', 'norm_a'), ('b', 'norm_b')]
