"""A stage over a config gives the same as the stage's file."""
import copy
import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdet_bpu.engine.stage_names import TRAINING_STAGES
from mmdet_bpu.engine.stages import (calibration_dataloader, complete_config, default_work_dir,
                                     load_config, stage_file)
from mmdet_bpu.errors import BpuError

STOCK = 'mmdet::deformable_detr/deformable-detr{}_r50_16xb2-50e_coco.py'
CONFIGS = Path(stage_file('qat')).parent
# mmengine reads a hundred metafiles to find a config of mmdet: each is read once here.
_read = functools.cache(load_config)


def load_once(config, stage=None):
    return copy.deepcopy(_read(str(config), stage))


@pytest.mark.parametrize('stage', TRAINING_STAGES)
@pytest.mark.parametrize('variant, file', [
    ('', '{stage}.py'),
    ('-refine', 'deformable_detr/deformable-detr-refine_r50_{stage}.py'),
    ('-refine-twostage', 'deformable_detr/deformable-detr-refine-twostage_r50_{stage}.py')])
def test_over_the_stock_config_it_equals_the_file(stage, variant, file):
    from_file = load_once(CONFIGS / file.format(stage=stage))
    over_stock = load_once(STOCK.format(variant), stage)
    assert over_stock.to_dict() == from_file.to_dict()
    complete_config(from_file)
    complete_config(over_stock)
    assert over_stock.to_dict() == from_file.to_dict()


@pytest.mark.parametrize('stage', TRAINING_STAGES)
def test_over_another_stages_file_nothing_of_that_stage_is_left(stage):
    expected = load_once(CONFIGS / f'{stage}.py').to_dict()
    for other in TRAINING_STAGES:
        assert load_once(CONFIGS / f'{other}.py', stage).to_dict() == expected


def test_the_reference_recipe():
    cfg = load_once(CONFIGS / 'float.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1e-4)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult * optimizer.lr == 1e-5
    assert cfg.optim_wrapper.paramwise_cfg.norm_decay_mult == 0
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].milestones) == (50, [40])
    cfg = load_once(CONFIGS / 'qat.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-5, 0)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].milestones) == (6, [5])
    assert 'paramwise_cfg' not in cfg.optim_wrapper


def test_overrides_win_over_the_stage():
    cfg = load_config(STOCK.format(''), 'qat', {'train_cfg.max_epochs': 1, 'bpu.march': 'nash-m'})
    assert cfg.train_cfg.max_epochs == 1 and complete_config(cfg).march == 'nash-m'


def test_a_config_of_the_stage_keeps_its_own_values(tmp_path):
    own = tmp_path / 'own_qat.py'
    own.write_text(f'_base_ = {str(CONFIGS / "qat.py")!r}\ntrain_cfg = dict(max_epochs=2)\n')
    assert load_config(str(own), 'qat').train_cfg.max_epochs == 2
    assert load_config(str(own), 'int').train_cfg.max_epochs == 2


def test_settings_of_the_config_below_stay(tiny_config):
    cfg = load_config(str(tiny_config), 'qat')
    assert tuple(cfg.bpu.input_shape) == (64, 64) and cfg.bpu.stage == 'qat'


def test_imports_of_the_config_below_stay(tmp_path):
    own = tmp_path / 'own.py'
    own.write_text(f'_base_ = {STOCK.format("")!r}\ncustom_imports = dict(imports=["json"])\n')
    assert load_config(str(own), 'qat').custom_imports.imports == ['json', 'mmdet_bpu.registration']


def test_beyond_float_all_data_has_the_deployed_shape():
    for stage in ('calibration', 'qat', 'int'):
        cfg = load_once(STOCK.format(''), stage)
        cfg.bpu.input_shape = (320, 480)
        complete_config(cfg)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            resizes = [t for t in loader.dataset.pipeline if t['type'] == 'Resize']
            assert [(tuple(t['scale']), t['keep_ratio']) for t in resizes] == [((480, 320), False)]
        assert cfg.model.data_preprocessor.pad_size_divisor == 1


def test_float_keeps_the_stock_pipelines_unless_asked():
    stock = load_once(STOCK.format(''), 'float')
    expected = stock.to_dict()
    complete_config(stock)
    assert {**stock.to_dict(), 'bpu': expected['bpu']} == expected
    deployed = load_once(STOCK.format(''), 'float')
    deployed.bpu.deploy_preprocessing = True
    complete_config(deployed)
    assert deployed.test_dataloader.dataset.pipeline[1].keep_ratio is False


def test_calibration_reads_training_images_through_validation_transforms():
    cfg = load_once(STOCK.format(''), 'calibration')
    complete_config(cfg)
    assert cfg.train_dataloader.dataset.ann_file.endswith('train2017.json')
    assert cfg.train_dataloader.dataset.pipeline == [
        dict(type='WithoutAnnotations') if step['type'] == 'LoadAnnotations' else step
        for step in cfg.val_dataloader.dataset.pipeline]
    # QAT from float weights calibrates on the same data.
    qat = load_once(STOCK.format(''), 'qat')
    complete_config(qat)
    assert calibration_dataloader(qat).to_dict() == cfg.train_dataloader.to_dict()


@pytest.mark.parametrize('stage', TRAINING_STAGES)
def test_completing_twice_changes_nothing(stage):
    cfg = load_once(STOCK.format(''), stage)
    complete_config(cfg)
    once = cfg.to_dict()
    complete_config(cfg)
    assert cfg.to_dict() == once


@pytest.mark.parametrize('config, stage, folder', [
    ('configs/demo/digits_qat.py', None, 'work_dirs/digits_qat'),
    ('configs/qat.py', None, 'work_dirs/qat'),
    ('some/mine.py', 'qat', 'work_dirs/mine_qat'), ('mmdet::a/b.py', 'float', 'work_dirs/b_float')])
def test_folders_of_stages_lie_beside_each_other(config, stage, folder):
    assert default_work_dir(config, Config(dict(bpu=dict(stage=stage or 'qat')))) == folder


def test_every_config_file_parses_and_has_a_name_of_its_own():
    files = [file for file in CONFIGS.rglob('*.py') if 'demo' not in file.parts]
    assert len({file.name for file in files}) == len(files)
    for file in files:
        if '_base_' not in file.parts:
            stage = re.search('float|calibration|qat', file.name).group()
            assert load_once(file).bpu.stage == stage


def test_the_swapped_backbone_fits_its_neck():
    cfg = load_once(CONFIGS / 'deformable_detr' / 'deformable-detr_effb3_qat.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
    backbone.eval()
    features = backbone(torch.zeros(1, 3, 64, 64))
    assert [feature.shape[1] for feature in features] == cfg.model.neck.in_channels
    assert [feature.shape[-1] for feature in features] == [8, 4, 2]


@pytest.mark.parametrize('config, stage, words', [
    ('no/such.py', None, 'no/such.py not found'),
    ('mmdet::deformable_detr/no-such.py', 'qat', 'no-such.py'),
    (STOCK.format(''), 'train', "unknown stage 'train'")])
def test_what_cannot_be_read_is_named(config, stage, words):
    with pytest.raises(BpuError, match=words):
        load_config(config, stage)


@pytest.mark.parametrize('line, words', [
    ("runner_type = 'FlexibleRunner'", "runner_type: expected 'BPURunner', found 'FlexibleRunner'"),
    ("strategy = dict(type='DeepSpeedStrategy')",
     "strategy: expected none, found 'DeepSpeedStrategy'")])
def test_strategies_are_refused(tmp_path, line, words):
    own = tmp_path / 'own.py'
    own.write_text(f'_base_ = {STOCK.format("")!r}\n{line}\n')
    with pytest.raises(BpuError, match=words):
        load_config(str(own), 'qat')


def test_a_config_without_a_stage_is_refused():
    cfg = load_once(STOCK.format(''))
    with pytest.raises(BpuError, match='no key bpu.*parameter stage'):
        complete_config(cfg)


def test_an_override_that_does_not_fit_the_config_is_named():
    with pytest.raises(BpuError, match='parameter cfg_options: .*cannot be merged'):
        load_config('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'qat',
                    {'train_dataloader.dataset.pipeline.99.type': 'Resize'})


def test_a_folder_that_mmengine_refuses_by_name_is_read():
    assert load_config('mmdet::legacy_1.x/ssd300_coco_v1.py', 'qat').model.type == 'SingleStageDetector'
    with pytest.raises(BpuError, match='mmdet::legacy_1.x/absent.py cannot be read'):
        load_config('mmdet::legacy_1.x/absent.py', 'qat')


PYTHON_STYLE = '''
from mmengine.config import read_base
from mmdet.datasets.transforms import Resize
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.detectors import RetinaNet
from torch.optim import AdamW
with read_base():
    from .base import *
model.update(dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0],
                           bgr_to_rgb=True)))
test_dataloader.dataset.pipeline[1].update(dict(type=Resize, scale=(96, 64)))
optim_wrapper.update(dict(optimizer=dict(type=AdamW, lr=0.5)))
default_scope = None
'''
PYTHON_STYLE_BASE = '''
model = dict(backbone=dict(type='ResNet', depth=18))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
    type='CocoDataset', pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]))
test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(keep_ratio=True), dict(type='PackDetInputs')]))
val_dataloader = test_dataloader
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
train_cfg = dict(max_epochs=3)
'''


@pytest.mark.parametrize('stage', ['float', 'calibration', 'qat', 'int'])
def test_python_style_configs_take_a_stage(tmp_path, stage):
    (tmp_path / 'base.py').write_text(PYTHON_STYLE_BASE)
    (tmp_path / 'lazy.py').write_text(PYTHON_STYLE)
    cfg = load_config(str(tmp_path / 'lazy.py'), stage, {'bpu.deploy_preprocessing': True})
    settings = complete_config(cfg)
    assert (settings.input_shape, settings.input_format, settings.resize) == ((64, 96), 'rgb',
                                                                              'letterbox')
    assert cfg.default_scope == 'mmdet'
    if stage in ('float', 'qat'):
        assert cfg.optim_wrapper.optimizer.lr == (0.5 if stage == 'float' else 0.05)
        assert cfg.optim_wrapper.optimizer.type == 'torch.optim.AdamW'
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MODELS.build(cfg.model.data_preprocessor)).__name__ == 'DetDataPreprocessor'


def test_the_two_styles_of_config_do_not_inherit_from_each_other(tmp_path):
    (tmp_path / 'base.py').write_text(PYTHON_STYLE_BASE)
    (tmp_path / 'lazy.py').write_text(PYTHON_STYLE)
    (tmp_path / 'mixed.py').write_text('_base_ = "lazy.py"\n')
    with pytest.raises(BpuError, match='mixed.py cannot be read.*lazy_import'):
        load_config(str(tmp_path / 'mixed.py'), 'qat')
