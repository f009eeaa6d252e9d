"""The recipe that is printed is the one that a stage runs by."""
from pathlib import Path

import mmdet
import pytest

from mmdet_bpu.engine.recipe_report import recipe_lines
from mmdet_bpu.engine.stages import recipes

STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
CHECKOUT = Path(__file__).resolve().parents[2]


def by_stage(config, **options):
    return {recipe['stage']: recipe for recipe in recipes(str(config), options or None)}


def test_each_stage_of_a_stock_config():
    found = by_stage(STOCK / 'retinanet/retinanet_r18_fpn_1x_coco.py')
    assert list(found) == ['float', 'calibration', 'qat']
    sgd = dict(type='SGD', lr=0.01, weight_decay=0.0001, momentum=0.9)
    assert found['float']['loop'] == dict(type='EpochBasedTrainLoop', epochs=12)
    assert found['float']['optimizer'] == sgd
    assert [row['milestones'] for row in found['float']['schedule'][1:]] == [[8, 11]]
    assert found['calibration']['loop'] == dict(type='CalibrationLoop', batches=100, observer='mse')
    assert (found['calibration']['optimizer'], found['calibration']['schedule']) == (None, [])
    assert found['qat']['loop'] == dict(type='QATLoop', epochs=6)
    assert found['qat']['optimizer'] == dict(sgd, lr=0.001, weight_decay=0.0)
    assert [row['milestones'] for row in found['qat']['schedule']] == [[5]]
    assert not any(recipe['hooks'] for recipe in found.values())


def test_hooks_that_a_stage_changes_are_named():
    rtmdet = by_stage(STOCK / 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    assert rtmdet['float']['hooks'] == []
    for stage in ('calibration', 'qat'):
        assert rtmdet[stage]['hooks'] == ['PipelineSwitchHook left out']
    yolox = by_stage(STOCK / 'yolox/yolox_s_8xb8-300e_coco.py')
    assert yolox['calibration']['hooks'] == ['YOLOXModeSwitchHook left out']
    assert yolox['qat']['hooks'] == ['YOLOXModeSwitchHook with num_last_epochs 1000000']


def test_a_hook_that_begins_later_in_float_begins_at_once():
    options = dict(custom_hooks=[dict(type='EMAHook', begin_epoch=7)])
    found = by_stage(STOCK / 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', **options)
    assert found['calibration']['hooks'] == ['EMAHook with no begin_epoch']


def test_a_config_of_a_later_stage_has_that_recipe_alone():
    found = by_stage(CHECKOUT / 'configs' / 'qat.py', **{'train_cfg.max_epochs': 3})
    assert list(found) == ['qat']
    assert found['qat']['loop'] == dict(type='QATLoop', epochs=3)
    assert found['qat']['optimizer']['lr'] == 1e-5


@pytest.mark.parametrize('stage, lines', [
    ('float', ['recipe of stage float: IterBasedTrainLoop, 22500 iterations',
               '  optimizer: SGD, lr 0.12, weight_decay 0.0001, momentum 0.9, groups of parameters ',
               '  schedule:  LinearLR in iterations 0 to 500, start_factor 0.001; MultiStepLR in '
               'iterations 0 to 22500, milestones [15000, 20000], gamma 0.1',
               '  hooks:     as in the config']),
    ('calibration', ['recipe of stage calibration: CalibrationLoop, 100 batches, observer mse',
                     '  hooks:     as in the config'])])
def test_a_recipe_in_lines(stage, lines):
    found = recipe_lines(by_stage(STOCK / 'yolof/yolof_r50-c5_8xb8-iter-1x_coco.py')[stage])
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines))


def test_a_stage_that_has_nothing_to_step_by_says_so():
    found = by_stage(STOCK / 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', optim_wrapper=None)
    assert '  optimizer: none; training needs optim_wrapper' in recipe_lines(found['float'])
