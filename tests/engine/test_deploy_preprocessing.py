"""Pipelines are rewritten to the one shape that is deployed."""
import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.engine.deploy_preprocessing import (rewrite_data_preprocessor, rewrite_dataset,
                                                   rewrite_pipeline)
from mmdet_bpu.errors import BpuError

STOCK = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
SHAPE = (96, 160)  # height, width


def types(pipeline):
    return [transform['type'] for transform in pipeline]


def test_the_test_pipeline_resizes_where_it_did():
    pipeline = get_config(STOCK).test_pipeline
    rewritten = rewrite_pipeline(pipeline, SHAPE)
    assert types(rewritten) == types(pipeline)
    assert rewritten[1] == dict(type='Resize', scale=(160, 96), keep_ratio=False)


def test_the_stock_training_pipeline_keeps_its_flip_and_crop():
    rewritten = rewrite_pipeline(get_config(STOCK).train_pipeline, SHAPE)
    assert types(rewritten) == ['LoadImageFromFile', 'LoadAnnotations', 'RandomFlip',
                                'RandomChoice', 'Resize', 'PackDetInputs']
    assert [types(branch) for branch in rewritten[3]['transforms']] == [[], ['RandomCrop']]


def test_every_image_of_the_rewritten_pipeline_has_the_shape():
    with DefaultScope.overwrite_default_scope('mmdet'):
        transforms = Compose(rewrite_pipeline(get_config(STOCK).train_pipeline, SHAPE)[2:-1])
    rng = np.random.default_rng(0)
    for height, width in ((480, 640), (700, 500), (1200, 30)):
        sample = dict(img=rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
                      img_shape=(height, width), gt_bboxes_labels=np.zeros(0, dtype=np.int64))
        assert transforms(sample)['img'].shape == (*SHAPE, 3)


@pytest.mark.parametrize('pipeline', [
    [dict(type='A'), dict(type='Pack')],
    [dict(type='A'), dict(type='RandomCrop', crop_size=(4, 4)), dict(type='Pack')],
    [dict(type='RandomChoice', transforms=[[dict(type='mmdet.Resize')], []]), dict(type='Pad'),
     dict(type='Pack')]])
def test_rewriting_again_changes_nothing(pipeline):
    once = rewrite_pipeline(pipeline, SHAPE)
    assert types(once)[-2:] == ['Resize', 'Pack']
    assert rewrite_pipeline(once, SHAPE) == once


def test_wrapped_datasets_are_rewritten():
    pipeline = [dict(type='Pad'), dict(type='Pack')]
    concat = ConfigDict(datasets=[dict(pipeline=pipeline), dict(dataset=dict(pipeline=pipeline))])
    rewrite_dataset(concat, SHAPE)
    assert types(concat.datasets[0].pipeline) == ['Resize', 'Pack']
    assert types(concat.datasets[1].dataset.pipeline) == ['Resize', 'Pack']


def test_a_mixing_dataset_fixes_the_shape_after_mixing():
    inner = [dict(type='Load'), dict(type='Resize')]
    mixing = [dict(type='Mosaic'), dict(type='Pack')]
    dataset = ConfigDict(dataset=dict(pipeline=inner), pipeline=mixing)
    rewrite_dataset(dataset, SHAPE)
    assert types(dataset.pipeline) == ['Mosaic', 'Resize', 'Pack']
    assert types(dataset.dataset.pipeline) == ['Load', 'Resize']


def test_the_data_preprocessor_pads_nothing():
    preprocessor = ConfigDict(bgr_to_rgb=True, pad_size_divisor=32, batch_augments=[dict()])
    rewrite_data_preprocessor(preprocessor, 'rgb')
    assert preprocessor.pad_size_divisor == 1 and 'batch_augments' not in preprocessor


def test_another_colour_order_than_the_model_was_trained_on_is_refused():
    with pytest.raises(BpuError, match="bpu.input_format: expected 'rgb'.*found 'bgr'"):
        rewrite_data_preprocessor(ConfigDict(bgr_to_rgb=True), 'bgr')
