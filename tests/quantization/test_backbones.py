"""Swapped backbones: from the shipped config to the integer dialect."""
import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_bpu.families.detector_path import run_tensor_path
from mmdet_bpu.graph.capture import capture
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import prepare, quantization_of, quantized_graphs, set_quant_state

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPE = (64, 96)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope='module')
def efficientnet(small_detector):
    """EfficientNet-B3 of the shipped config under a small transformer."""
    config = Config.fromfile(CONFIGS / 'deformable_detr' / 'deformable-detr_effb3_float.py').model
    backbone = {**config.backbone.to_dict(), '_delete_': True}
    return small_detector('', backbone=backbone, num_feature_levels=4,
                          neck=dict(in_channels=list(config.neck.in_channels), num_outs=4),
                          encoder=_one_layer('self_attn_cfg'), decoder=_one_layer('cross_attn_cfg'))


def _one_layer(attention):
    return dict(num_layers=1, layer_cfg={
        attention: dict(num_levels=4, dropout=0.0),
        'ffn_cfg': dict(feedforward_channels=64, ffn_drop=0.0)})


def test_efficientnet_is_captured_bit_for_bit(efficientnet):
    with torch.no_grad():
        expected = run_tensor_path(efficientnet, IMAGE)
    captured = capture(efficientnet, torch.zeros_like(IMAGE))
    assert all(torch.equal(a, b) for a, b in zip(captured.run(IMAGE), expected, strict=True))
    assert len(set(captured.sites())) == len(captured.sites())


def test_efficientnet_goes_to_integers(efficientnet, calibrated):
    with torch.no_grad():
        expected = run_tensor_path(efficientnet, IMAGE)
    model = prepare(copy.deepcopy(efficientnet),
                    dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    with torch.no_grad():
        for output, reference in zip(run_tensor_path(model, IMAGE), expected, strict=True):
            torch.testing.assert_close(output, reference, atol=1e-4, rtol=0)
    integer, _ = convert(export_networks(quantized_graphs(calibrated(model, IMAGE))))
    program = program_from_module(integer)
    convolutions = [i for i in program.instructions if i.op == 'bpu.conv2d']
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    # Its adaptive padding of stride 2 (bottom and right only) is the convolution's own.
    assert [0, 0, 1, 1] in [list(i.attrs['pad']) for i in convolutions]
    assert any(i.attrs['groups'] > 1 for i in convolutions), 'depthwise'


def test_drop_path_in_training_shifts_no_site(efficientnet, losses_of):
    model = copy.deepcopy(efficientnet)
    prepare(model, dict(input_shape=SHAPE))
    set_quant_state(model, 'observe')
    quant, fired = quantization_of(model), set()

    class Noting(dict):

        def get(self, key):
            fired.add(key)
            return super().get(key)

    quant.plan = Noting(quant.plan)
    losses_of(model, IMAGE)
    assert set(quant.plan) <= fired
