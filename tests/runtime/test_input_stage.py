"""The host's picture is the test pipeline's, after normalisation and quantization, bit for bit."""
import copy
import functools
import re
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.engine.predictors import picture_pipeline
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.families.contract import preprocessing
from mmdet_bpu.runtime import input_stage
from mmdet_bpu.runtime.input_stage import int8_image, picture_metas
from mmdet_bpu.runtime.picture_frame import place

SIZES = [(96, 160), (160, 96), (37, 301), (640, 480), (1, 900), (96, 96)]  # height, width
LETTERBOXED = ['rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py',
               'retinanet/retinanet_r50_fpn_1x_coco.py', 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
               'centernet/centernet_r18_8xb16-crop512-140e_coco.py']
STRETCHED = ['ssd/ssd300_coco.py', 'dino/dino-4scale_r50_8xb2-12e_coco.py']
PACK = dict(type='PackDetInputs', meta_keys=('img_shape', 'ori_shape', 'scale_factor'))


# mmengine reads a hundred metafiles to find a config of mmdet: each is read once here.
read = functools.cache(get_config)


def stock(name, **bpu):
    cfg = copy.deepcopy(read(f'mmdet::{name}'))
    cfg.bpu = dict(stage='int', input_shape=(96, 160), **bpu)
    return cfg


def of_channels(channels, **loading):
    pipeline = [dict(type='LoadImageFromFile', **loading),
                dict(type='Resize', scale=(160, 96), keep_ratio=True), PACK]
    return Config(dict(
        bpu=dict(stage='int'), default_scope='mmdet',
        model=dict(type='RetinaNet', backbone=dict(type='ResNet', depth=18, in_channels=channels),
                   data_preprocessor=dict(type='DetDataPreprocessor', mean=[120.5], std=[61.0])),
        test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline))))


def input_scale(cfg):
    """A scale of the network's input at which the extremes saturate a little."""
    stage = preprocessing(cfg)
    ends = [(end - m) / s for end in (0, 255) for m, s in zip(stage['mean'], stage['std'])]
    return max(map(abs, ends)) / 135.7


def by_mmdet(cfg, picture):
    """What mmdet's transforms and data preprocessor make of a picture: integers, and metas."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        data = Compose([TRANSFORMS.build(step) for step in picture_pipeline(cfg)])(
            dict(img=picture, img_id=0))
    batch = preprocess(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
    return quantize_image(batch['inputs'][0], input_scale(cfg)).numpy(), batch['data_samples'][0]


def by_host(cfg, picture):
    contract = dict(preprocessing=preprocessing(cfg), inputs=[dict(scale=input_scale(cfg))])
    return int8_image(picture, contract), contract


@pytest.mark.parametrize('name, resize', [
    *((name, None) for name in LETTERBOXED + STRETCHED),
    *((name, 'stretch') for name in LETTERBOXED), *((name, 'letterbox') for name in STRETCHED)])
def test_a_picture_becomes_the_integers_that_mmdet_evaluates(name, resize):
    cfg = stock(name, resize=resize)
    complete_config(cfg)
    kept = preprocessing(cfg)['resize']['keep_ratio']
    assert kept is (resize == 'letterbox' or resize is None and name in LETTERBOXED)
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected, _ = by_mmdet(cfg, picture)
        levels, _ = by_host(cfg, picture)
        assert levels.dtype == np.int8 and len(np.unique(levels)) > 40
        np.testing.assert_array_equal(levels, expected)


@pytest.mark.parametrize('channels, loading', [(1, dict(color_type='grayscale')), (4, {})])
def test_pictures_of_one_and_of_four_channels_too(channels, loading):
    cfg = of_channels(channels, **loading)
    assert complete_config(cfg).input_shape == (96, 160)
    shape = (60, 77) if channels == 1 else (60, 77, channels)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    levels, _ = by_host(cfg, picture)
    assert levels.shape == (1, 96, 160, channels)
    np.testing.assert_array_equal(levels, by_mmdet(cfg, picture)[0])


def test_a_coloured_picture_becomes_gray_as_opencv_makes_it():
    cfg = of_channels(1, color_type='grayscale')
    complete_config(cfg)
    picture = np.random.default_rng(0).integers(0, 256, (60, 77, 3), dtype=np.uint8)
    np.testing.assert_array_equal(by_host(cfg, picture)[0],
                                  by_host(cfg, mmcv.bgr2gray(picture))[0])


def test_another_number_of_channels_is_refused():
    cfg = of_channels(4)
    complete_config(cfg)
    with pytest.raises(ValueError, match='4 channels, found 3'):
        by_host(cfg, np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize('name', LETTERBOXED[:3] + STRETCHED)
def test_heads_are_told_where_the_picture_lies(name):
    cfg = stock(name)
    complete_config(cfg)
    for height, width in SIZES:
        _, sample = by_mmdet(cfg, np.zeros((height, width, 3), np.uint8))
        contract = preprocessing(cfg)
        metas = picture_metas(contract['resize'], width, height)
        for key in ('ori_shape', 'img_shape', 'scale_factor'):
            assert tuple(metas[key]) == tuple(sample.metainfo[key]), key
        assert sample.batch_input_shape == sample.pad_shape == (96, 160)


def test_a_centred_picture_states_its_border():
    cfg = stock('centernet/centernet_r18_8xb16-crop512-140e_coco.py')
    complete_config(cfg)
    _, sample = by_mmdet(cfg, np.zeros((96, 80, 3), np.uint8))
    assert sample.border.tolist() == [0, 96, 40, 120]
    assert sample.img_shape == (96, 160)
    metas = picture_metas(preprocessing(cfg)['resize'], 80, 96)
    assert list(metas['border']) == [0, 96, 40, 120] and metas['img_shape'] == (96, 160)


SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.integers(8, 2000), st.integers(8, 2000))
def test_a_picture_of_the_inputs_orientation_has_the_size_that_mmcv_gives_it(width, height, w, h):
    resize = dict(width=w, height=h, keep_ratio=True, corner='top_left')
    placed = place(resize, width, height)
    assert 1 <= placed.width <= w and 1 <= placed.height <= h
    expected = mmcv.rescale_size((width, height), (w, h))
    # mmcv fits either orientation, and lets a thin picture vanish.
    if (width >= height) == (w >= h) and min(expected) > 0:
        assert (placed.width, placed.height) == expected


@given(SIDES, SIDES, st.integers(8, 2000), st.integers(8, 2000))
def test_a_centred_picture_is_a_pixel_at_most_from_the_middle(width, height, w, h):
    placed = place(dict(width=w, height=h, keep_ratio=True, corner='center'), width, height)
    for before, side, whole in ((placed.left, placed.width, w), (placed.top, placed.height, h)):
        assert 0 <= (whole - side - before) - before <= 1


def test_the_module_and_what_it_imports_need_numpy_and_cv2_only():
    pending, seen, foreign = [Path(input_stage.__file__)], set(), set()
    while pending:
        path = pending.pop()
        seen.add(path)
        imported = re.findall(r'^\s*(?:import|from) ([\w.]+)', path.read_text(), re.MULTILINE)
        for name in set(imported) - {'mmdet_bpu.errors'}:
            module = path.with_name(f'{name.removeprefix("mmdet_bpu.runtime.")}.py')
            if not name.startswith('mmdet_bpu.runtime.'):
                foreign.add(name)
            elif module not in seen:
                pending.append(module)
    assert len(seen) > 5
    assert foreign <= {'typing', 'numpy', 'cv2', 'fractions', 'functools'}


def test_a_full_image_is_not_padded():
    rule = dict(width=16, height=8, keep_ratio=True, corner='top_left')
    assert place(rule, 32, 16) == (0, 0, 16, 8)
    assert torch.equal(torch.tensor(place(rule, 16, 16)), torch.tensor((0, 0, 8, 8)))
