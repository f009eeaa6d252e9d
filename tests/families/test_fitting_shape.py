"""Input shapes that backbone and neck cannot take are refused with the next ones that fit."""
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.fitting_shape import (fitting_shapes, require_fitting_shape,
                                              shape_as_tested)

STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'


@pytest.mark.parametrize('shape, fits, expected', [
    ((800, 1333), lambda shape: all(side % 32 == 0 for side in shape), [(800, 1312), (800, 1344)]),
    ((90, 64), lambda shape: all(side % 4 == 0 for side in shape), [(88, 64), (92, 64)]),
    ((200, 210), lambda shape: min(shape) >= 300, [(320, 320)]),
    ((20, 300), lambda shape: all(side % 32 == 0 for side in shape), [(32, 320)]),
    ((64, 64), lambda shape: False, [])])
def test_the_next_smaller_and_the_next_larger_shape_that_fit(shape, fits, expected):
    assert fitting_shapes(shape, fits) == expected


def test_a_neck_that_joins_levels_names_the_next_shapes(stock):
    model = stock('yolox')
    with pytest.raises(BpuError, match=(
            r'field bpu.input_shape: expected \(height, width\) that YOLOXPAFPN can take, found '
            r'\(64, 72\) \(.*\); the next that fit: \(64, 64\) and \(64, 96\)$')):
        require_fitting_shape(model, (64, 72))
    for shape in ((64, 64), (64, 96)):
        require_fitting_shape(model, shape)
        with torch.no_grad():
            model.extract_feat(torch.zeros(1, 3, *shape))


def test_a_neck_that_cuts_takes_any_shape(stock):
    require_fitting_shape(stock('retinanet'), (67, 91))


class Toy(nn.Module):
    """A detector whose backbone and neck are one function."""

    def __init__(self, extract_feat):
        super().__init__()
        self.extract_feat, self.scale = extract_feat, nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(3)


def test_what_no_shape_cures_is_left_to_what_runs_next():

    def broken(image):
        raise ValueError('no such level')

    require_fitting_shape(Toy(broken), (64, 90))
    require_fitting_shape(nn.Identity(), (64, 90))


def test_a_branch_on_values_is_no_fault_of_the_shape():
    """torch's meta device cannot run it; the model itself can."""
    require_fitting_shape(Toy(lambda image: image * 2 if image.sum() == 0 else None), (64, 90))


def test_modules_stay_in_the_mode_that_they_are_in():
    seen, model = [], None

    def extract_feat(image):
        seen.append(image.device.type)
        if image.shape[3] % 4:
            raise ValueError('odd')

    model = Toy(extract_feat).train()
    model.norm.eval()
    with pytest.raises(BpuError, match=r'\(odd\); the next that fit: \(64, 88\) and \(64, 92\)'):
        require_fitting_shape(model, (64, 90))
    assert model.training and not model.norm.training
    assert set(seen) == {'cpu', 'meta'} and seen.count('cpu') == 1


@pytest.mark.parametrize('name, divisor, expected', [
    ('yolox/yolox_tiny_8xb8-300e_coco.py', 32, (64, 96)),
    ('yolox/yolox_tiny_8xb8-300e_coco.py', 1, (64, 72)),
    ('yolox/yolox_tiny_8xb8-300e_coco.py', 16, (64, 72)),  # (64, 80) does not fit either
    ('retinanet/retinanet_r18_fpn_1x_coco.py', 32, (64, 72))])
def test_a_test_pipeline_s_size_is_padded_where_the_neck_needs_that(name, divisor, expected):
    cfg = Config.fromfile(STOCK / name)
    cfg.model.data_preprocessor.pad_size_divisor = divisor
    assert shape_as_tested(cfg, (64, 72)) == expected


def test_a_config_that_cannot_be_built_keeps_its_size():
    cfg = Config.fromfile(STOCK / 'retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone.type = 'NoSuchNet'
    assert shape_as_tested(cfg, (64, 72)) == (64, 72)
