"""Values of the wrong kind are named before anything reads them."""
import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmdet_bpu.engine.config_structure import check_structure
from mmdet_bpu.engine.stages import complete_config, load_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import class_of

DATASET = dict(type='CocoDataset', pipeline=[dict(type='Resize', scale=(96, 64))])


@pytest.mark.parametrize('field, value, words', [
    ('bpu', 5, 'field bpu: expected a dict, found 5'),
    ('model', [1], 'field model: expected a dict whose type'),
    ('model', dict(type=5), 'field model: expected a dict whose type is a name or a class'),
    ('model', dict(type='A', backbone='ResNet'), 'field model.backbone: '),
    ('model', dict(type='A', data_preprocessor=dict(mean=5)),
     'field model.data_preprocessor.mean: expected a list, found 5'),
    ('train_dataloader', dict(batch_size=2, dataset=None),
     'field train_dataloader.dataset: expected a dict whose type is a name or a class, found none'),
    ('val_dataloader', dict(batch_size=2), 'field val_dataloader.dataset: expected a dict'),
    ('test_dataloader', 'x', 'field test_dataloader: expected a dict'),
    ('test_dataloader', dict(dataset=[DATASET]), 'field test_dataloader.dataset: '),
    ('val_dataloader', dict(dataset=dict(type='A', pipeline=dict(type='Resize'))),
     'field val_dataloader.dataset.pipeline: expected a list of dicts'),
    ('train_dataloader', dict(dataset=dict(type='ConcatDataset', datasets=[DATASET, 3])),
     'field train_dataloader.dataset.datasets: '),
    ('train_dataloader', dict(dataset=dict(type='RepeatDataset', dataset=dict(
        type='A', pipeline=[None]))), 'field train_dataloader.dataset.dataset.pipeline: '),
    ('custom_hooks', [dict(type='')], 'field custom_hooks: expected a list of dicts whose types'),
    ('model', dict(type='.RetinaNet'), 'field model: expected a dict whose type is a name'),
    ('custom_hooks', dict(type='EMAHook'), 'field custom_hooks: expected a list'),
    ('custom_hooks', [dict(type='PipelineSwitchHook', switch_epoch='x')], 'switch_epoch: expected'),
    ('optim_wrapper', 'SGD', 'field optim_wrapper: '),
    ('train_cfg', dict(max_epochs='12'), 'train_cfg.max_epochs: expected a positive integer'),
    ('default_scope', 5, 'field default_scope: expected a text, found 5'),
    ('model', dict(type='A', neck=[dict(type='FPN', num_outs=10**500)]),
     'field model.neck[0].num_outs: expected an integer of at most 64 bits, found one of 1662'),
    ('randomness', dict(seed=-2**63 - 1), 'field randomness.seed: expected an integer of at most'),
])
def test_a_value_of_the_wrong_kind_is_named(tmp_path, field, value, words):
    (tmp_path / 'config.py').write_text(f'{field} = {value!r}\n')
    with pytest.raises(BpuError) as caught:
        load_config(str(tmp_path / 'config.py'), 'qat')
    assert words in str(caught.value)
    cfg = Config(dict(dict(bpu=dict(stage='qat')), **{field: value}))
    with pytest.raises(BpuError):
        complete_config(cfg)


def test_a_circle_of_data_sets_is_refused():
    dataset = dict(DATASET)
    for _ in range(40):
        dataset = dict(type='RepeatDataset', dataset=dataset)
    with pytest.raises(BpuError, match='at most 32 data sets around one another'):
        check_structure(Config(dict(train_dataloader=dict(dataset=dataset))))


@pytest.mark.parametrize('line', ['raise SystemExit(0)', '\0', 'x = (', '_base_ = 5'])
def test_a_config_that_ends_the_reading_is_refused_in_one_line(tmp_path, line):
    (tmp_path / 'config.py').write_text(line + '\n')
    with pytest.raises(BpuError, match='config.py cannot be read: ') as caught:
        load_config(str(tmp_path / 'config.py'), 'qat')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('stated, words', [
    (dict(mean=[0.0, float('nan'), 0.0]), 'mean: expected a list of finite numbers'),
    (dict(mean=[1.0] * 3, std=[1.0, 0.0, 1.0]), 'std: expected numbers above 0'),
    (dict(mean=[1.0] * 3, std=[1.0, -2.0, 1.0]), 'std: expected numbers above 0'),
    (dict(mean=[1.0] * 3, std=[10**400] * 3), 'std: expected a list of finite numbers'),
    (dict(mean=[1.0] * 3, std=[1.0, 1.0]), 'std: expected 1 number or 3'),
    (dict(mean=[1.0] * 3, std=['1'] * 3), 'std: expected a list of finite numbers'),
])
def test_a_normalisation_that_no_picture_survives_is_refused(stated, words):
    from mmdet_bpu.families.normalisation import normalisation
    with pytest.raises(BpuError, match=f'field model.data_preprocessor.{words}'):
        normalisation(Config(dict(model=dict(data_preprocessor=stated))))


@pytest.mark.parametrize('name', ['', '.', '..hook', 'a:b', 'no.such.module.Hook'])
def test_a_name_that_no_registry_takes_is_no_class(name):
    assert class_of(dict(type=name), HOOKS) is None
