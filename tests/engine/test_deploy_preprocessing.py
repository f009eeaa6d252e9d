"""Pipelines are rewritten to the one shape that is deployed."""
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.engine.deploy_preprocessing import (rewrite_data_preprocessor, rewrite_dataset,
                                                   rewrite_pipeline, rewrite_switched_pipelines)
from mmdet_bpu.families.picture_resize import PictureResize

STOCK = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
STRETCH = PictureResize(96, 160, keep_ratio=False)
LETTERBOX = PictureResize(96, 160, keep_ratio=True, pad_value=(1.0, 2.0, 3.0))
RGB = dict(bgr_to_rgb=True)


def types(pipeline):
    return [transform['type'] for transform in pipeline]


def stretched(pipeline, training=False):
    return rewrite_pipeline(pipeline, STRETCH, RGB, training)


def letterboxed(pipeline, training=False):
    return rewrite_pipeline(pipeline, LETTERBOX, RGB, training)


def test_the_test_pipeline_resizes_where_it_did():
    pipeline = get_config(STOCK).test_pipeline
    rewritten = stretched(pipeline)
    assert types(rewritten) == types(pipeline)
    assert rewritten[1] == dict(type='Resize', scale=(160, 96), keep_ratio=False)
    assert types(letterboxed(pipeline)) == ['LoadImageFromFile', 'Letterbox', 'LoadAnnotations',
                                            'PackDetInputs']


def test_padding_has_the_order_in_which_pictures_are_read():
    fixed, = [t for t in letterboxed(get_config(STOCK).test_pipeline) if t['type'] == 'Letterbox']
    assert fixed['pad_val'] == (3.0, 2.0, 1.0)
    kept = rewrite_pipeline([dict(type='Pack')], LETTERBOX, dict(bgr_to_rgb=False))
    assert kept[0]['pad_val'] == (1.0, 2.0, 3.0)


def test_the_stock_training_pipeline_keeps_its_flip_and_crop():
    rewritten = stretched(get_config(STOCK).train_pipeline, training=True)
    assert types(rewritten) == ['LoadImageFromFile', 'LoadAnnotations', 'RandomFlip',
                                'RandomChoice', 'Resize', 'PackDetInputs']
    assert [types(branch) for branch in rewritten[3]['transforms']] == [[], ['RandomCrop']]


def test_a_letterboxed_training_pipeline_keeps_its_own_sizes():
    pipeline = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py').train_pipeline
    rewritten = letterboxed(pipeline, training=True)
    assert rewritten[:-2] == list(pipeline[:-1]) and types(rewritten[-2:]) == [
        'Letterbox', 'PackDetInputs']
    assert rewritten[-2]['enlarge'] is False


@pytest.mark.parametrize('rewrite', [stretched, letterboxed])
def test_every_image_of_the_rewritten_pipeline_has_the_shape(rewrite):
    with DefaultScope.overwrite_default_scope('mmdet'):
        transforms = Compose(rewrite(get_config(STOCK).train_pipeline, training=True)[2:-1])
    rng = np.random.default_rng(0)
    for height, width in ((480, 640), (700, 500), (1200, 30)):
        sample = dict(img=rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
                      img_shape=(height, width), gt_bboxes_labels=np.zeros(0, dtype=np.int64))
        assert transforms(sample)['img'].shape == (96, 160, 3)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('rewrite, fixed', [(stretched, 'Resize'), (letterboxed, 'Letterbox')])
@pytest.mark.parametrize('pipeline', [
    [dict(type='A'), dict(type='Pack')],
    [dict(type='A'), dict(type='RandomCrop', crop_size=(4, 4)), dict(type='Pack')],
    [dict(type='RandomChoice', transforms=[[dict(type='mmdet.Resize')], []]), dict(type='Pad'),
     dict(type='Pack')]])
def test_rewriting_again_changes_nothing(pipeline, rewrite, fixed, training):
    once = rewrite(pipeline, training)
    assert types(once)[-2:] == [fixed, 'Pack']
    assert rewrite(once, training) == once


def test_evaluation_decodes_in_full_and_in_8_bits_as_a_board_does():
    pipeline = [dict(type='LoadResizedImageFromLMDB', resize=dict(type='Resize', scale=(8, 8)),
                     lmdb='x'), dict(type='Pack')]
    assert stretched(pipeline) == [dict(type='LoadImageFromLMDB', lmdb='x'),
                                   dict(type='Resize', scale=(160, 96), keep_ratio=False),
                                   dict(type='Pack')]
    loaded = letterboxed([dict(type='LoadImageFromFile', to_float32=True),
                          dict(type='RandomCenterCropPad', test_mode=True), dict(type='Pack')])
    assert types(loaded) == ['LoadImageFromFile', 'Letterbox', 'Pack']
    assert loaded[0]['to_float32'] is False


def test_training_loads_as_it_did():
    loading = dict(type='LoadImageFromFile', to_float32=True)
    for rewrite in (stretched, letterboxed):
        assert rewrite([loading, dict(type='Pack')], training=True)[0] == loading


def test_wrapped_datasets_are_rewritten():
    pipeline = [dict(type='Pad'), dict(type='Pack')]
    concat = ConfigDict(datasets=[dict(pipeline=pipeline), dict(dataset=dict(pipeline=pipeline))])
    rewrite_dataset(concat, STRETCH, RGB)
    assert types(concat.datasets[0].pipeline) == ['Resize', 'Pack']
    assert types(concat.datasets[1].dataset.pipeline) == ['Resize', 'Pack']


def test_a_mixing_dataset_fixes_the_shape_after_mixing():
    inner = [dict(type='Load'), dict(type='Resize')]
    mixing = [dict(type='Mosaic'), dict(type='Pack')]
    dataset = ConfigDict(dataset=dict(pipeline=inner), pipeline=mixing)
    rewrite_dataset(dataset, STRETCH, RGB)
    assert types(dataset.pipeline) == ['Mosaic', 'Resize', 'Pack']
    assert types(dataset.dataset.pipeline) == ['Load', 'Resize']


def test_pipelines_that_hooks_switch_to_are_rewritten():
    hooks = [dict(type='EMAHook'),
             dict(type='PipelineSwitchHook', switch_pipeline=[dict(type='Pad'), dict(type='Pack')])]
    rewrite_switched_pipelines(hooks, STRETCH, RGB)
    assert types(hooks[1]['switch_pipeline']) == ['Resize', 'Pack']
    rewrite_switched_pipelines(None, STRETCH, RGB)


def test_the_data_preprocessor_pads_nothing():
    preprocessor = ConfigDict(bgr_to_rgb=True, pad_size_divisor=32, batch_augments=[dict()])
    rewrite_data_preprocessor(preprocessor)
    assert preprocessor.pad_size_divisor == 1 and 'batch_augments' not in preprocessor
