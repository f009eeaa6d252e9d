"""Data of other classes than the head's are refused before anything is trained or evaluated."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmdet_bpu.engine.data_classes import check_classes
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.errors import BpuError


def head_of(classes):
    return dict(model__bbox_head__num_classes=classes)


@pytest.mark.parametrize('classes', [2, 4])
def test_training_says_which_classes_the_data_have(staged, tmp_path, classes):
    runner = BPURunner.from_cfg(staged('float', tmp_path / 'x', **head_of(classes)))
    with pytest.raises(BpuError) as caught:
        runner.train()
    words = str(caught.value)
    assert words.startswith('field train_dataloader: its data set has 3 classes (')
    assert f'model.bbox_head.num_classes is {classes}; set that to 3, or' in words


@pytest.mark.parametrize('purpose', ['val', 'test'])
def test_evaluation_does_too(staged, tmp_path, purpose):
    runner = BPURunner.from_cfg(staged('float', tmp_path / 'x', **head_of(4)))
    with pytest.raises(BpuError, match=f'field {purpose}_dataloader: its data set has 3 classes'):
        getattr(runner, purpose)()


def test_pictures_of_any_classes_calibrate(staged, tmp_path):
    floats = BPURunner.from_cfg(staged('float', tmp_path / 'x_float', **head_of(4)))
    floats.model.init_weights()  # until then, parameters may hold whatever was in memory
    weights = tmp_path / 'float.pth'
    torch.save(dict(state_dict=floats.model.state_dict()), weights)
    cfg = staged('calibration', tmp_path / 'x_calibration', load_from=str(weights), **head_of(4))
    runner = BPURunner.from_cfg(cfg)
    assert len(runner.build_dataloader(runner._train_dataloader).dataset.metainfo['classes']) == 3
    with pytest.raises(BpuError, match='field val_dataloader: '):
        runner.build_dataloader(runner._val_dataloader)


def dataset(names):
    return SimpleNamespace(metainfo=dict(classes=names))


def test_what_does_not_say_its_classes_passes():
    cfg = Config(dict(model=dict(bbox_head=dict(num_classes=4))))
    check_classes(cfg, 'test_dataloader', object())
    check_classes(cfg, 'test_dataloader', dataset(()))
    check_classes(Config(dict(model=dict())), 'test_dataloader', dataset(('a', )))
    with pytest.raises(BpuError, match='has 1 classes'):
        check_classes(cfg, 'test_dataloader', dataset(('a', )))


def test_boxes_of_any_class_are_of_all_data():
    cfg = Config(dict(model=dict(rpn_head=dict(num_classes=1))))
    check_classes(cfg, 'test_dataloader', dataset(('a', 'b')))
