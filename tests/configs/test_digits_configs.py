"""The demo's configs: one detector, one data set, and stages equal to ``--stage`` over the float one."""
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_bpu.engine.stages import load_config

DEMO = Path(__file__).parents[2] / 'configs' / 'demo'
FLOAT = str(DEMO / 'digits_float.py')
# What a stage's file may set for the demo; everything else is the overlay's.
SCHEDULE = ('optim_wrapper', 'param_scheduler', 'max_epochs')


@pytest.mark.parametrize('stage', ['calibration', 'qat'])
def test_stage_file_is_the_stage_put_over_the_float_config(stage):
    own = load_config(str(DEMO / f'digits_{stage}.py')).to_dict()
    put_over = load_config(FLOAT, stage).to_dict()
    own['bpu'].pop('calibration')
    for schedule in (own, put_over):
        for key in SCHEDULE:
            schedule.pop(key, None)
        schedule['train_cfg'] = schedule['train_cfg']['type']
        schedule['train_dataloader'].pop('batch_size')
        if stage == 'qat':  # number of checkpoints kept
            schedule['default_hooks']['checkpoint'].pop('max_keep_ckpts')
    assert own == put_over


def test_control_trains_as_many_steps_at_the_same_rate_as_qat():
    control = load_config(str(DEMO / 'digits_float_control.py'))
    qat = load_config(str(DEMO / 'digits_qat.py'))
    assert control.bpu.stage == 'float' and qat.bpu.stage == 'qat'
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader', 'model'):
        assert control[key] == qat[key], key
    assert control.train_cfg.max_epochs == qat.train_cfg.max_epochs


def test_detector_is_the_stock_two_stage_deformable_detr():
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(FLOAT, import_custom_modules=False)
    model = MODELS.build(cfg.model)
    assert type(model).__module__ == 'mmdet.models.detectors.deformable_detr'
    assert model.as_two_stage and model.with_box_refine
    assert model.bbox_head.num_classes == len(cfg.metainfo.classes) == 10


def test_schedule_ends_with_its_decay():
    cfg = load_config(FLOAT)
    steps = -(-1500 // cfg.train_dataloader.batch_size) * cfg.train_cfg.max_epochs
    assert max(scheduler['end'] for scheduler in cfg.param_scheduler) == steps
