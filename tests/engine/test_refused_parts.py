"""Parts that refuse their own arguments: their words in one sentence that names the field."""
import pytest
import torch

from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.training import train
from mmdet_bpu.errors import BpuError


@pytest.mark.parametrize('field, value, place, words', [
    ('optim_wrapper.optimizer.type', 'Foo', 'optim_wrapper.optimizer.type',
     'Foo is not in the registry of optimizers'),
    ('optim_wrapper.optimizer.lr', -1.0, 'optim_wrapper.optimizer.type', 'Invalid learning rate'),
    pytest.param('optim_wrapper.type', 'AmpOptimWrapper', 'optim_wrapper.type', 'only available',
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is at hand')),
    ('optim_wrapper.paramwise_cfg', dict(custom_keys=5), 'optim_wrapper', 'custom_keys'),
    ('model.backbone.depth', 19, 'model.backbone.type', 'invalid depth 19 for resnet'),
    ('model.neck.norm_cfg.num_groups', 7, 'model.neck.norm_cfg.type', 'divisible by num_groups (7)'),
    ('train_dataloader.batch_size', 'x', 'train_dataloader', 'batch_size'),
    ('train_dataloader.sampler', dict(type='DefaultSampler', shufle=True),
     'train_dataloader.sampler.type', "unexpected keyword argument 'shufle'"),
    ('train_dataloader.dataset.pipeline.0.colour', 'x', 'train_dataloader.dataset.pipeline.0.type',
     "unexpected keyword argument 'colour'"),
    ('val_evaluator.metric', 'mAQ', 'val_evaluator.type', "but got mAQ"),
    ('custom_hooks', [dict(type='EMAHook', momentum=7)], None, 'momentum must be'),
    ('default_hooks.checkpoint.save_best', 5, 'default_hooks.checkpoint.type', 'save_best'),
    ('param_scheduler', [dict(type='MultiStepLR', milestones=5)], 'param_scheduler.0.type',
     'MultiStepLR'),
    ('randomness.sed', 3, 'randomness', "unexpected keyword argument 'sed'"),
])
def test_a_part_that_cannot_be_built_is_named(staged, tmp_path, field, value, place, words):
    cfg = staged('float', tmp_path / 'run')
    cfg.merge_from_dict({field: value})
    with pytest.raises(BpuError) as caught:
        train(cfg, str(tmp_path / 'run'))
    message = str(caught.value)
    assert words in message and '\n' not in message
    if place:
        assert f'field {place}' in message, message


def test_mixed_precision_needs_an_accelerator(staged, tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet_bpu.engine.training.get_device', lambda: 'cpu')
    with pytest.raises(BpuError, match='parameter amp: expected a GPU .*found none'):
        train(staged('float', tmp_path / 'run'), str(tmp_path / 'run'), amp=True)


def test_a_work_folder_that_cannot_be_written_is_named(staged, tmp_path):
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(BpuError, match='parameter work_dir: expected a folder, found the file'):
            train(staged('float', folder), str(folder))


def test_what_we_do_with_a_model_that_was_built_is_no_fault_of_the_config(staged, tmp_path,
                                                                         monkeypatch):
    def broken(*_):
        raise KeyError('a program error')

    monkeypatch.setattr('mmdet_bpu.engine.staged_model.require_fitting_shape', broken)
    cfg = staged('float', tmp_path / 'run', bpu__deploy_preprocessing=True)
    with pytest.raises(KeyError, match='a program error'):
        train(cfg, str(tmp_path / 'run'))


def test_assertions_of_ours_stay_assertions(staged, tmp_path, monkeypatch):
    from mmdet.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class Asserting:
        def __init__(self):
            raise AssertionError

    with pytest.raises(BpuError, match='Asserting cannot be built: AssertionError: raise Asserti'):
        with refused_config(staged('float', tmp_path)):
            TRANSFORMS.build(dict(type='Asserting'))
    monkeypatch.setattr('mmdet_bpu.engine.config_errors.OURS', __import__('pathlib').Path(
        __file__).parent)
    with pytest.raises(AssertionError):
        with refused_config(staged('float', tmp_path)):
            TRANSFORMS.build(dict(type='Asserting'))
