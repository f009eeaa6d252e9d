"""What is evaluated is what the contract promises, or it is refused."""
import copy

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.engine.promised_input import require_promised_input
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.contract import preprocessing

RESIZE = dict(type='Resize', scale=(64, 48), keep_ratio=False)
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'ori_shape', 'scale_factor'))
COLORS = dict(type='DetDataPreprocessor', mean=[103.5, 116.3, 123.7], std=[57.4, 57.1, 58.4],
              bgr_to_rgb=True)


def completed(*transforms, preprocessor=COLORS, resize=RESIZE, channels=3, **bpu):
    pipeline = [dict(type='LoadImageFromFile'), resize, dict(type='LoadAnnotations', with_bbox=True),
                *transforms, PACK]
    cfg = Config(dict(
        bpu=dict(stage='qat', **bpu), default_scope='mmdet',
        model=dict(type='RetinaNet', backbone=dict(type='ResNet', in_channels=channels),
                   data_preprocessor=copy.deepcopy(preprocessor)),
        test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline))))
    complete_config(cfg)
    return cfg


def check(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        require_promised_input(cfg, preprocessing(cfg))


@pytest.mark.parametrize('resize', [
    RESIZE, dict(RESIZE, keep_ratio=True), dict(RESIZE, interpolation='nearest'),
    dict(RESIZE, interpolation='area'),
    dict(type='FixScaleResize', scale=(64, 48), keep_ratio=True, interpolation='bicubic')])
@pytest.mark.parametrize('preprocessor', [
    COLORS, dict(COLORS, bgr_to_rgb=False), dict(COLORS, mean=[0.0], std=[255.0]),
    dict(type='DetDataPreprocessor', bgr_to_rgb=False)])
def test_stock_pipelines_are_as_promised(resize, preprocessor):
    check(completed(resize=resize, preprocessor=preprocessor))


@TRANSFORMS.register_module()
class DarkenForTest(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] // 2
        return results


@TRANSFORMS.register_module()
class CountForTest(BaseTransform):
    def transform(self, results):
        results['count'] = results['img'].size
        return results


@pytest.mark.parametrize('transform, name', [
    (dict(type='PhotoMetricDistortion'), 'PhotoMetricDistortion'),
    (dict(type='RandomFlip', prob=0.01), 'RandomFlip'),
    (dict(type='RandomFlip', prob=[0.01, 0.01], direction=['horizontal', 'vertical']), 'RandomFlip'),
    (dict(type='Normalize', mean=[1.0] * 3, std=[2.0] * 3, to_rgb=False), 'Normalize'),
    (dict(type='YOLOXHSVRandomAug'), 'YOLOXHSVRandomAug'),
    (dict(type='Invert', prob=1.0), 'Invert'),
    (dict(type='CenterCrop', crop_size=(20, 20)), 'CenterCrop'),
    (dict(type='CutOut', n_holes=3, cutout_shape=(9, 9)), 'CutOut'),
    (dict(type='DarkenForTest'), 'DarkenForTest')], ids=lambda value: str(value)[:40])
def test_a_transform_that_changes_pixels_is_named(transform, name):
    with pytest.raises(BpuError, match=f'pipeline: expected transforms .*found {name} '):
        check(completed(dict(type='CountForTest'), transform))


@pytest.mark.parametrize('transform', [
    dict(type='RandomFlip', prob=0.0), dict(type='CountForTest')], ids=str)
def test_a_transform_that_changes_none_is_let_through(transform):
    check(completed(transform))


@pytest.mark.parametrize('channels', [1, 4])
def test_pictures_of_another_number_of_channels(channels):
    cfg = completed(preprocessor=dict(COLORS, mean=[128.0], std=[64.0], bgr_to_rgb=False),
                    resize=dict(RESIZE, keep_ratio=True), channels=channels)
    assert len(preprocessing(cfg)['mean']) == channels
    check(cfg)


@pytest.mark.parametrize('resize, interpolation', [
    (dict(type='ResizeShortestEdge', scale=48, max_size=64, interpolation='nearest'), 'nearest'),
    (dict(type='RandomResize', scale=(64, 48), ratio_range=(1, 1), interpolation='lanczos'),
     'lanczos'),
    (dict(type='RandomChoiceResize', scales=[(64, 48)], interpolation='area'), 'area')])
def test_the_interpolation_that_a_config_states_is_the_one_that_is_promised(resize, interpolation):
    cfg = completed(resize=resize, input_shape=(48, 64))
    stated = preprocessing(cfg)
    assert stated['resize']['interpolation'] == interpolation
    check(cfg)


@pytest.mark.parametrize('resize, words', [
    (dict(RESIZE, interpolation='hamming'), "found 'hamming'"),
    (dict(RESIZE, interpolation=['area']), r"found \['area'\]")])
def test_an_interpolation_that_no_host_has_is_refused(resize, words):
    with pytest.raises(BpuError, match=f'expected an interpolation of nearest, .*{words}'):
        completed(resize=resize)


def test_a_config_that_resizes_by_pillow_is_deployed_by_cv2():
    cfg = completed(resize=dict(RESIZE, backend='pillow'))
    assert preprocessing(cfg)['resize']['interpolation'] == 'bilinear'
    check(cfg)


def test_noise_shows_the_difference_of_interpolations():
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    near, smooth = (cv2.resize(noise, (64, 48), interpolation=kind).astype(int)
                    for kind in (cv2.INTER_NEAREST, cv2.INTER_LINEAR))
    assert np.abs(near - smooth).max() > 100
