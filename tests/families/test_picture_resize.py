"""Size, resize and channels of the deployed input are those of the config's own test pipeline."""
import pytest
from mmengine.config import Config

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.picture_format import agreed_format, input_channels, picture_format
from mmdet_bpu.families.picture_resize import default_shape, picture_resize

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
KEPT = dict(type='Resize', scale=(1333, 800), keep_ratio=True)


def config(*transforms, kind='RetinaNet', backbone=None, loading=None, **preprocessor):
    pipeline = [dict(type='LoadImageFromFile', **(loading or {})), *transforms,
                dict(type='PackDetInputs')]
    return Config(dict(
        model=dict(type=kind, backbone=dict(backbone or {}),
                   data_preprocessor=dict(type='DetDataPreprocessor', **preprocessor)),
        test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline))))


@pytest.mark.parametrize('transforms, shape', [
    ([KEPT], (800, 1333)),
    ([dict(type='mmdet.Resize', scale=(300, 300), keep_ratio=False)], (300, 300)),
    ([dict(type='Resize', scale=608)], (608, 608)),
    ([dict(type='Resize', scale=(1440, 800), keep_ratio=True),
      dict(type='Pad', size_divisor=32)], (800, 1440)),
    ([dict(type='Resize', scale=(1000, 600), keep_ratio=True),
      dict(type='Pad', size_divisor=32)], (608, 1024)),
    ([dict(type='Resize', scale=(416, 300), keep_ratio=True),
      dict(type='Pad', pad_to_square=True)], (416, 416)),
    ([dict(type='Resize', scale=(640, 640), keep_ratio=True),
      dict(type='Pad', size=(640, 512))], (512, 640)),
    ([dict(type='FixScaleResize', scale=(800, 1333), keep_ratio=True)], (800, 1333)),
    ([dict(type='ResizeShortestEdge', scale=800, max_size=1333)], (800, 1333)),
    ([dict(type='FixShapeResize', width=640, height=384, keep_ratio=True)], (384, 640)),
])
def test_the_shape_is_what_the_test_pipeline_makes(transforms, shape):
    cfg = config(*transforms, mean=MEAN, std=STD)
    assert default_shape(cfg) == shape == picture_resize(cfg).shape


@pytest.mark.parametrize('transforms, reason', [
    ([], 'it does not resize pictures'),
    ([dict(type='Resize', scale_factor=0.5)], 'scales them by a factor'),
    ([dict(type='RandomCenterCropPad', test_mode=True, mean=[0, 0, 0])],
     'RandomCenterCropPad keeps the size of each'),
    ([dict(type='TestTimeAug', transforms=[])], 'TestTimeAug gives them several sizes'),
    ([dict(type='ResizeShortestEdge', scale=800)], 'leaves their longer edge open')])
def test_without_one_size_the_reason_is_given_and_a_shape_asked_for(transforms, reason):
    cfg = config(*transforms, mean=MEAN, std=STD)
    assert default_shape(cfg) is None
    with pytest.raises(BpuError, match=f'bpu.input_shape.*{reason}'):
        picture_resize(cfg)
    assert picture_resize(cfg, (64, 96)).shape == (64, 96)


def test_what_the_settings_say_wins():
    cfg = config(KEPT, mean=MEAN, std=STD)
    stated = picture_resize(cfg, (64, 96), 'stretch')
    assert (stated.shape, stated.keep_ratio, stated.pad_value) == ((64, 96), False, ())


@pytest.mark.parametrize('kind, keep_ratio, expected', [
    ('RetinaNet', True, True), ('RetinaNet', False, False), ('DINO', True, False),
    ('DETR', True, False)])
def test_ratio_is_kept_where_the_pipeline_keeps_it_and_no_mask_is_needed(kind, keep_ratio,
                                                                         expected):
    cfg = config(dict(KEPT, keep_ratio=keep_ratio), kind=kind, mean=MEAN, std=STD)
    assert picture_resize(cfg).keep_ratio is expected


def test_a_detector_that_would_mask_its_padding_takes_all_of_the_input_for_the_picture():
    masked, other = (picture_resize(config(KEPT, kind=kind, mean=MEAN, std=STD), None, 'letterbox')
                     for kind in ('DINO', 'RetinaNet'))
    assert (masked.clip, other.clip) == ('input', 'picture')


@pytest.mark.parametrize('transforms, preprocessor, padding', [
    # Padded by the data preprocessor after normalisation: with 0, the mean; with 2, two sigma up.
    ([KEPT], dict(mean=MEAN, std=STD, bgr_to_rgb=True), tuple(MEAN)),
    ([KEPT], dict(mean=MEAN, std=STD, pad_value=2), tuple(m + 2 * s for m, s in zip(MEAN, STD))),
    ([KEPT], dict(), (0, 0, 0)),
    # Padded by the pipeline, blue first; the network gets red first.
    ([KEPT, dict(type='Pad', size=(9, 9), pad_val=dict(img=(1, 2, 3)))],
     dict(mean=MEAN, std=STD, bgr_to_rgb=True), (3, 2, 1)),
    ([KEPT, dict(type='Pad', size=(9, 9), pad_val=dict(img=(1, 2, 3)))],
     dict(mean=MEAN, std=STD), (1, 2, 3)),
    ([KEPT, dict(type='Pad', pad_to_square=True, pad_val=114)], dict(mean=MEAN, std=STD),
     (114, 114, 114))])
def test_padding_is_that_of_the_config_in_the_order_of_the_network(transforms, preprocessor,
                                                                   padding):
    assert picture_resize(config(*transforms, **preprocessor)).pad_value == padding


def test_a_padded_centre_is_a_corner_too():
    cfg = config(dict(type='RandomCenterCropPad', test_mode=True, mean=[1, 2, 3], to_rgb=True),
                 mean=MEAN, std=STD, bgr_to_rgb=True)
    resize = picture_resize(cfg, (64, 64))
    assert (resize.corner, resize.pad_value, resize.clip) == ('center', (1, 2, 3), 'input')


@pytest.mark.parametrize('cfg, channels, order', [
    (config(mean=MEAN, std=STD, bgr_to_rgb=True), 3, 'rgb'),
    (config(mean=MEAN, std=STD, rgb_to_bgr=True), 3, 'rgb'),
    (config(mean=MEAN, std=STD, bgr_to_rgb=False), 3, 'bgr'),
    (config(), 3, 'bgr'),
    (config(mean=[128.0], std=[64.0], backbone=dict(in_channels=1)), 1, 'gray'),
    (config(mean=[128.0], std=[64.0], loading=dict(color_type='grayscale')), 1, 'gray'),
    (config(mean=[128.0], std=[64.0]), 3, 'bgr'),
    (config(backbone=dict(in_channels=4)), 4, 'unchanged')])
def test_channels_and_their_order_are_those_that_the_model_is_given(cfg, channels, order):
    assert (input_channels(cfg), picture_format(cfg)) == (channels, order)
    assert agreed_format(cfg, None) == agreed_format(cfg, order) == order


def test_one_channel_has_no_order():
    assert agreed_format(config(mean=[128.0], std=[64.0], backbone=dict(in_channels=1)),
                         'bgr') == 'gray'


@pytest.mark.parametrize('cfg, stated, words', [
    (config(mean=MEAN, std=STD, bgr_to_rgb=True), 'bgr',
     "bpu.input_format: expected 'rgb'.*found 'bgr'"),
    (config(mean=MEAN, std=STD), 'gray', "expected 'bgr'.*3 channels.*found 'gray'"),
    (config(mean=[1.0], std=[1.0], backbone=dict(in_channels=1)), 'rgb', "expected 'gray'"),
    (config(bgr_to_rgb=True, backbone=dict(in_channels=4)), None,
     'bgr_to_rgb: expected False for a model of 4 input channels')])
def test_another_format_than_the_model_is_trained_on_is_refused(cfg, stated, words):
    with pytest.raises(BpuError, match=words):
        agreed_format(cfg, stated)
