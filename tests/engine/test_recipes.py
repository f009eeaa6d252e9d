"""Any stock config keeps its own recipe in float, and QAT goes on with it where it ended."""
import copy
import functools
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from mmdet_bpu.engine.float_end import ALL_EPOCHS, go_on_from_float_end
from mmdet_bpu.engine.stages import complete_config, load_config
from mmdet_bpu.errors import BpuError

# Families, optimizers, loops, samplers, data set wrappers and hooks of many kinds.
STOCK = [
    'retinanet/retinanet_r18_fpn_1x_coco.py', 'retinanet/retinanet_r50_fpn_90k_coco.py',
    'atss/atss_r50_fpn_8xb8-amp-lsj-200e_coco.py', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py',
    'ssd/ssd300_coco.py', 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'yolof/yolof_r50-c5_8xb8-iter-1x_coco.py', 'tood/tood_r50_fpn_1x_coco.py',
    'pvt/retinanet_pvt-t_fpn_1x_coco.py', 'detr/detr_r50_8xb2-500e_coco.py',
    'dino/dino-4scale_r50_8xb2-12e_coco.py', 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py',
    'pascal_voc/retinanet_r50_fpn_1x_voc0712.py', 'vfnet/vfnet_r50_fpn_1x_coco.py']
RECIPE = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'custom_hooks',
          'default_hooks', 'train_dataloader', 'val_dataloader', 'test_dataloader',
          'val_evaluator', 'test_evaluator', 'auto_scale_lr', 'model')
# By path, not as mmdet::...: mmengine reads a hundred metafiles for each of those.
FOLDER = Path(mmdet.__file__).parent / '.mim' / 'configs'
_stock = functools.cache(Config.fromfile)
_staged = functools.cache(load_config)


def stock(name):
    return copy.deepcopy(_stock(str(FOLDER / name)))


def staged(name, stage, shape=(96, 160)):
    """The config with a stage and, unless ``shape`` is None, an input shape that every neck takes."""
    cfg = copy.deepcopy(_staged(str(FOLDER / name), stage))
    if shape is not None:
        cfg.bpu.input_shape = shape
    return cfg


def plain(cfg, key):
    return cfg.to_dict().get(key)


def members(dataset):
    """Configs of the data sets inside wrappers."""
    while dataset.get('dataset') is not None:
        dataset = dataset.dataset
    return [one for each in dataset.datasets for one in members(each)] \
        if dataset.get('datasets') else [dataset]


@pytest.mark.parametrize('name', STOCK)
def test_float_leaves_everything_as_it_is(name):
    cfg = staged(name, 'float')
    complete_config(cfg)
    assert [plain(cfg, key) for key in RECIPE] == [plain(stock(name), key) for key in RECIPE]


@pytest.mark.parametrize('name', STOCK)
def test_qat_takes_the_optimizer_at_a_tenth_of_its_rate_without_weight_decay(name):
    own, qat = plain(stock(name), 'optim_wrapper'), plain(staged(name, 'qat'), 'optim_wrapper')
    assert qat['optimizer'].pop('lr') == pytest.approx(own['optimizer'].pop('lr') / 10, rel=1e-12)
    assert qat['optimizer'].pop('weight_decay') == 0
    own['optimizer'].pop('weight_decay', None)
    assert qat == own


@pytest.mark.parametrize('name', STOCK)
def test_qat_has_six_epochs_and_decays_at_the_fifth(name):
    cfg = staged(name, 'qat')
    complete_config(cfg)
    assert cfg.train_cfg.to_dict() == dict(type='QATLoop', max_epochs=6, val_interval=1)
    scheduler, = cfg.param_scheduler
    assert (scheduler.type, scheduler.milestones, scheduler.gamma) == ('MultiStepLR', [5], 0.1)
    assert scheduler.by_epoch and cfg.log_processor.by_epoch
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.interval, checkpoint.by_epoch) == (1, True)
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.val_cfg.type == 'QuantValLoop'


@pytest.mark.parametrize('name', STOCK)
def test_calibration_takes_no_step(name):
    cfg = staged(name, 'calibration')
    complete_config(cfg)
    assert cfg.train_cfg.to_dict() == dict(type='CalibrationLoop')
    assert cfg.optim_wrapper.optimizer.lr == 0 and cfg.param_scheduler is None
    # Pictures of any kind calibrate: annotations are not read.
    pipeline = [dict(type='WithoutAnnotations') if step['type'] == 'LoadAnnotations' else step
                for step in cfg.val_dataloader.dataset.pipeline]
    assert [member.pipeline == pipeline for member in members(cfg.train_dataloader.dataset)] \
        in ([True], [True, True])


@pytest.mark.parametrize('name', STOCK)
@pytest.mark.parametrize('stage', ['calibration', 'qat', 'int'])
def test_completing_twice_changes_nothing(name, stage):
    cfg = staged(name, stage)
    settings, once = complete_config(cfg), cfg.to_dict()
    assert complete_config(cfg) == settings and cfg.to_dict() == once


@pytest.mark.parametrize('name, shape, order, resize', [
    ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (640, 640), 'bgr', 'letterbox'),
    ('yolox/yolox_s_8xb8-300e_coco.py', (640, 640), 'bgr', 'letterbox'),
    ('ssd/ssd300_coco.py', (300, 300), 'rgb', 'stretch'),
    ('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', (320, 320), 'rgb', 'letterbox'),
    ('retinanet/retinanet_r18_fpn_1x_coco.py', (800, 1333), 'rgb', 'letterbox'),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', (800, 1333), 'bgr', 'letterbox'),
    ('pascal_voc/retinanet_r50_fpn_1x_voc0712.py', (600, 1000), 'rgb', 'letterbox'),
    ('dino/dino-4scale_r50_8xb2-12e_coco.py', (800, 1333), 'rgb', 'stretch'),
    # Its neck cannot take 800 x 1333; stock mmdet pads to multiples of 32 there.
    ('hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py', (800, 1344), 'bgr', 'letterbox')])
def test_the_deployed_input_is_that_of_the_test_pipeline(name, shape, order, resize):
    settings = complete_config(staged(name, 'int', shape=None))
    assert (settings.input_shape, settings.input_format, settings.resize) == (shape, order, resize)


def test_a_switched_pipeline_is_qats_from_the_start():
    own = stock('rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    cfg = staged('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'qat')
    switch = own.custom_hooks[1]
    assert switch.type == 'PipelineSwitchHook'
    assert cfg.train_dataloader.dataset.pipeline == switch.switch_pipeline
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    assert plain(cfg, 'custom_hooks')[0] == plain(own, 'custom_hooks')[0]


def test_yolox_goes_on_without_mosaic_and_with_its_l1_loss():
    cfg = staged('yolox/yolox_s_8xb8-300e_coco.py', 'qat')
    assert cfg.train_dataloader.dataset.skip_type_keys == ('Mosaic', 'RandomAffine', 'MixUp')
    assert [hook.type for hook in cfg.custom_hooks] == ['YOLOXModeSwitchHook', 'SyncNormHook',
                                                        'EMAHook']
    # mmdet's condition in the first epoch of a run of any length that QAT may have.
    assert 0 + 1 >= 500 - cfg.custom_hooks[0].num_last_epochs


def test_tood_has_left_its_warm_up():
    assert stock('tood/tood_r50_fpn_1x_coco.py').model.train_cfg.initial_epoch == 4
    assert staged('tood/tood_r50_fpn_1x_coco.py', 'qat').model.train_cfg.initial_epoch == 0


def test_neither_calibration_nor_an_executable_has_hooks_that_train():
    name = 'yolox/yolox_s_8xb8-300e_coco.py'
    left = {}
    for stage in ('calibration', 'int'):
        cfg = staged(name, stage)
        complete_config(cfg)
        left[stage] = [hook.type for hook in cfg.custom_hooks]
    assert left == dict(calibration=['SyncNormHook', 'EMAHook'], int=['SyncNormHook'])


def switching(*switches, max_epochs=10, **dataset):
    hooks = [dict(type='PipelineSwitchHook', switch_epoch=epoch, switch_pipeline=[dict(type=name)])
             for epoch, name in switches]
    return Config(dict(
        train_cfg=dict(max_epochs=max_epochs), model=dict(), custom_hooks=hooks,
        train_dataloader=dict(dataset=dataset or dict(pipeline=[dict(type='First')]))))


@pytest.mark.parametrize('switches, left', [
    ([], 'First'), ([(5, 'A')], 'A'), ([(8, 'B'), (5, 'A')], 'B'), ([(10, 'Never')], 'First'),
    ([(5, 'A'), (12, 'Never')], 'A'), ([(5, 'A'), (5, 'B')], 'B')])
def test_only_switches_that_happened_count(switches, left):
    cfg = switching(*switches)
    go_on_from_float_end(cfg)
    assert cfg.train_dataloader.dataset.pipeline == [dict(type=left)]
    assert cfg.custom_hooks == []


def test_a_switched_pipeline_reaches_the_data_set_inside_its_wrappers():
    inner = dict(pipeline=[dict(type='First')])
    cfg = switching((1, 'A'), type='RepeatDataset', dataset=dict(inner))
    go_on_from_float_end(cfg)
    assert cfg.train_dataloader.dataset.dataset.pipeline == [dict(type='A')]
    cfg = switching((1, 'A'), type='ConcatDataset', datasets=[dict(inner), dict(inner)])
    go_on_from_float_end(cfg)
    assert [d.pipeline for d in cfg.train_dataloader.dataset.datasets] == [[dict(type='A')]] * 2


def test_averages_have_begun():
    cfg = switching()
    cfg.custom_hooks = [dict(type='EMAHook', begin_epoch=3, momentum=0.5)]
    go_on_from_float_end(cfg)
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=0.5)]
    assert ALL_EPOCHS > 10_000


@pytest.mark.parametrize('optimizer, decay', [
    (dict(type='AdamW', lr=1.0), {'weight_decay': 0.0}),  # torch's default is 0.01
    (dict(type='Rprop', lr=1.0), {}),  # has none
    (dict(type='Unheard', lr=1.0, weight_decay=3), {'weight_decay': 0.0})])
def test_weight_decay_is_set_where_an_optimizer_has_one(tmp_path, optimizer, decay):
    cfg = put_over(tmp_path, f'optim_wrapper = dict(optimizer={optimizer!r})')
    assert cfg.optim_wrapper.optimizer == dict(type=optimizer['type'], lr=0.1, **decay)


def put_over(tmp_path, *lines, stage='qat'):
    path = tmp_path / 'own.py'
    path.write_text('\n'.join(["model = dict(type='RetinaNet')", *lines]) + '\n')
    return load_config(str(path), stage)


@pytest.mark.parametrize('line', ['', 'optim_wrapper = None', "optim_wrapper = dict(type='X')",
                                  "optim_wrapper = dict(optimizer=dict(type='SGD'))"])
def test_without_a_rate_there_is_no_optimizer_to_slow_down(tmp_path, line):
    assert put_over(tmp_path, line).optim_wrapper is None


def test_a_users_own_validation_stays(tmp_path):
    lines = 'val_dataloader = dict()', "val_cfg = dict(type='MyLoop')"
    assert put_over(tmp_path, *lines).val_cfg.type == 'MyLoop'
    assert put_over(tmp_path, lines[0], 'val_cfg = dict(fp16=True)').val_cfg == dict(
        type='QuantValLoop', fp16=True)
    assert 'val_cfg' not in put_over(tmp_path)


def test_a_later_stage_has_lost_the_float_recipe(tmp_path):
    lines = ["bpu = dict(stage='qat')", "optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0))",
             'train_cfg = dict(max_epochs=6)', 'train_dataloader = dict(dataset=dict())']
    lost = put_over(tmp_path, *lines, stage='float')
    assert lost.optim_wrapper is lost.train_cfg is lost.param_scheduler is None
    assert lost.bpu.stage == 'float'
    assert put_over(tmp_path, *lines, stage='calibration').train_cfg.type == 'CalibrationLoop'
    assert put_over(tmp_path, *lines).optim_wrapper.optimizer.lr == 1.0  # its own stage: kept


def test_no_delete_mark_is_left(tmp_path):
    for stage in ('float', 'calibration', 'qat'):
        assert '_delete_' not in str(put_over(tmp_path, stage=stage).to_dict())


def test_a_stage_over_a_config_that_asks_for_a_strategy_is_refused(tmp_path):
    with pytest.raises(BpuError, match='strategy'):
        put_over(tmp_path, "strategy = dict(type='DDPStrategy')")
