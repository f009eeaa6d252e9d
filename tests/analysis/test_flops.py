"""Counts agree with a count by hand and with mmengine's own counter."""
import copy

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmdet_bpu import apis
from mmdet_bpu.analysis.flops import count_model
from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.detector_path import run_tensor_path

STOCK = 'mmdet::deformable_detr/deformable-detr{}_r50_16xb2-50e_coco.py'


class TensorPath(nn.Module):
    """What mmengine's counter traces."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return run_tensor_path(self.model, image)


# px. The smaller the image, the more of the plain model is constant.
@pytest.mark.parametrize('variant, shape', [('', (256, 256)), ('-refine-twostage', (128, 160))])
@pytest.mark.filterwarnings('ignore')
def test_the_count_agrees_with_mmengines_within_2_percent(variant, shape):
    model = apis.build_detector(load_config(STOCK.format(variant)))
    traced = TensorPath(copy.deepcopy(model))
    count = count_model(model, shape)
    analyzer = FlopAnalyzer(traced, torch.zeros(1, 3, *shape))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    theirs = analyzer.total()
    assert count.comparable_macs / theirs == pytest.approx(1, abs=0.02)
    assert count.macs < count.whole_macs < count.comparable_macs < theirs
    if not variant:
        # The first convolution by hand: 64 outputs of 7 x 7 x 3 on 128 x 128 px.
        assert count.ops[0].macs == 128 * 128 * 64 * 7 * 7 * 3
        # A token's value projection, offsets, weights and output of one encoder layer.
        tokens = 32 * 32 + 16 * 16 + 8 * 8 + 4 * 4
        attention = [op.macs for op in count.ops if op.path.startswith('encoder.layers.3.self_attn')
                     and op.kind == 'linear']
        assert sum(attention) == tokens * 256 * (256 + 256 + 128 + 256)
        assert count.flops == 2 * count.macs == 2 * sum(count.by_module(1).values())


def test_a_transposed_convolution_counts_every_pixel_with_every_weight(toy):
    model = toy(lambda self, x: self.up(x), up=nn.ConvTranspose2d(3, 6, 4, 2, 1, groups=3))
    assert count_model(model, (32, 64)).macs == 32 * 64 * 3 * 2 * 4 * 4


def test_a_shape_below_the_strides_is_refused():
    with pytest.raises(BpuError, match='parameter shape: expected at least 32 px, found 16 x 64'):
        count_model(nn.Module(), (16, 64))


def test_a_deformable_convolution_counts_as_its_product():
    from mmcv.ops import ModulatedDeformConv2dPack
    from tests.stock_detectors import ToyDetector
    layer = ModulatedDeformConv2dPack(3, 4, 3, padding=1, groups=1)
    count = count_model(ToyDetector(lambda self, x: self.dcn(x), dict(dcn=layer)), (32, 40))
    assert [(op.kind, op.macs) for op in count.ops] == [
        ('conv2d', 32 * 40 * 27 * 27), ('deform_conv2d', 32 * 40 * 4 * 27)]
    assert count.macs == 32 * 40 * 31 * 27
