"""Capture of stock detectors: bit for bit, with unique and stable sites."""
import copy

import pytest
import torch
from torch import nn

from mmdet_bpu.families.detector_path import run_tensor_path
from mmdet_bpu.graph.capture import capture
from mmdet_bpu.graph.deploy_graph import (capture_detector, deploy_graph, deployed_part,
                                          open_attention)
from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.fold import fold_captured

SHAPE = (160, 192)


@pytest.fixture(scope='module', params=['', '-refine', '-refine-twostage'],
                ids=['plain', 'refine', 'twostage'])
def captured_stock(request, detector):
    """(model with open attention, its captured graph, an image, the stock last layer's outputs)."""
    model = detector(request.param)
    image = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = run_tensor_path(model, image)
    open_attention(model)
    return model, capture(model, torch.zeros_like(image)), image, expected


def test_run_back_it_equals_the_stock_model_bit_for_bit(captured_stock):
    _, captured, image, expected = captured_stock
    for output, reference in zip(captured.run(image), expected, strict=True):
        assert torch.equal(output, reference)


def test_site_keys_and_names_are_unique(captured_stock):
    _, captured, _, _ = captured_stock
    sites = captured.sites()
    keys = [node.meta['key'] for node in captured.graph.nodes if 'key' in node.meta]
    assert len(sites) == len(keys) > 1000
    assert len(set(sites)) == len(sites)
    assert len(set(keys)) == len(keys)


def test_prepared_with_quantizers_off_it_equals_the_stock_model_to_1e_4(captured_stock):
    model, _, image, expected = captured_stock
    prepared = prepare(copy.deepcopy(model), dict(input_shape=SHAPE))
    assert len(quantization_of(prepared).folded) == 53, 'every batch norm of ResNet-50'
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules())
    with torch.no_grad():
        outputs = run_tensor_path(prepared, image)
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize('variant', ['', '-refine', '-refine-twostage'])
def test_the_deployed_graph_computes_the_last_decoder_layer(small_detector, execute, variant):
    model = small_detector(variant)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = run_tensor_path(model, image)
    open_attention(model)
    captured = capture_detector(model, (64, 64))
    fold_captured(model, captured)
    graph = deployed_part(model, captured)
    assert graph.output_names == ['cls_scores', 'bbox_preds']
    for output, reference in zip(execute(graph, image), expected, strict=True):
        torch.testing.assert_close(output, reference, atol=1e-4, rtol=0)


def test_heads_of_the_inner_decoder_layers_are_not_deployed(small_detector):
    model = small_detector('-refine-twostage')
    open_attention(model)
    _, graph = deploy_graph(model, (64, 64))
    branches = {op.path for op in graph.ops if op.path.startswith('bbox_head.cls_branches')}
    # Of two decoder layers the last one predicts; the third branch scores the proposals.
    assert branches == {'bbox_head.cls_branches.1', 'bbox_head.cls_branches.2'}


def test_names_and_keys_are_the_same_in_every_run_and_in_a_copy(small_detector):
    model = small_detector()
    open_attention(model)
    image = torch.zeros(1, 3, 64, 64)

    def identities(detector):
        nodes = [n for n in capture(detector, image).graph.nodes if 'key' in n.meta]
        return [(n.meta['site'], n.meta['key']) for n in nodes]

    first = identities(model)
    assert identities(model) == first
    assert identities(copy.deepcopy(model)) == first


def test_capture_leaves_modes_and_classes_as_they_were(small_detector):
    model = small_detector().train()
    model.neck.eval()
    before = [(name, module.training, type(module)) for name, module in model.named_modules()]
    capture(model, torch.zeros(1, 3, 64, 64))
    assert before == [(name, m.training, type(m)) for name, m in model.named_modules()]


def test_the_refined_boxes_of_decoder_and_head_are_different_sites(small_detector):
    model = small_detector('-refine')
    open_attention(model)
    sites = capture(model, torch.zeros(1, 3, 64, 64)).sites()
    shared = [site for site in sites if site.startswith('bbox_head.reg_branches.0.0/')]
    # One module, called by the decoder to refine and by the head to predict.
    assert shared == ['bbox_head.reg_branches.0.0/linear.0', 'bbox_head.reg_branches.0.0/linear.1']


def test_what_depends_on_the_image_alone_is_in_the_graph(small_detector):
    model = small_detector('')
    open_attention(model)
    captured = capture(model, torch.zeros(1, 3, 64, 64))
    paths = {node.meta['path'] for node in captured.graph.nodes if 'site' in node.meta}
    assert 'positional_encoding' not in paths


@pytest.mark.parametrize('channels', [1, 4])
def test_the_graph_has_the_image_that_the_backbone_reads(toy, execute, channels):
    model = toy(lambda self, image: self.backbone(image), backbone=nn.Conv2d(channels, 2, 3))
    _, graph = deploy_graph(model, (6, 8))
    assert graph.values[graph.inputs[0]].shape == (1, channels, 6, 8)
    image = torch.randn(1, channels, 6, 8)
    torch.testing.assert_close(execute(graph, image)[0], model(image))


def test_a_batch_norm_that_cannot_be_folded_is_a_depthwise_convolution(toy, execute):
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    model = toy(lambda self, image: self.norm(image), norm=norm)
    image = torch.randn(1, 3, 4, 4)
    _, graph = deploy_graph(model, (4, 4))
    assert [op.kind for op in graph.ops] == ['conv2d'] and graph.ops[0].params['groups'] == 3
    torch.testing.assert_close(execute(graph, image)[0], model(image))
