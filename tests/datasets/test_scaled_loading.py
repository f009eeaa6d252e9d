"""The oracle is the pair ``LoadImageFromLMDB`` and resize that one transform stands for."""
import copy
import io
import pickle
from contextlib import contextmanager

import cv2
import mmdet.datasets.transforms  # noqa: F401  (registers the stock transforms)
import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image

from mmdet_bpu.datasets import CocoLMDBDataset, LoadResizedImageFromLMDB, loading
from mmdet_bpu.errors import BpuError

SIZES = [(640, 480), (427, 640), (641, 479), (333, 500), (1201, 77), (50, 33), (17, 17), (5, 3)]
SCALES = [(1333, 800), (667, 400), (160, 160), (64, 40), (97, 31), (16, 16)]
# dB on smooth images. The least that was measured is 41.6; it is 32.1 if the fraction of a pixel by
# which a reduced image goes beyond the border is not allowed for.
MIN_PSNR = 40


def smooth(width, height):
    """Slow waves and a slope, in which a shift by a pixel shows."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    waves = [np.sin(6 * x + 2 * y), np.cos(5 * y - x), 2 * x - 1]
    return (127.5 + 120 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def noise(width, height):
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def encoded(pixels, kind='JPEG', orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(quality=95, subsampling=0) if kind == 'JPEG' else {}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


class StoreOf:
    """A database with one image of any content."""

    def __init__(self, content):
        self.content = content

    @contextmanager
    def image(self, image_id):
        view = memoryview(self.content)
        yield view
        view.release()  # as the store does: nothing may point into it now


@pytest.fixture
def both(monkeypatch):
    """Run the pair and the one transform: ``both(content, resize, options, sample)``."""

    def run(content, resize, options=None, sample=None):
        monkeypatch.setattr(loading, 'open_store', lambda path: StoreOf(content))
        sample = dict(img_id=25, lmdb_path='train_lmdb', **(sample or {}))
        options = options or {}
        results = []
        with DefaultScope.overwrite_default_scope('mmdet'):
            one = [dict(type='LoadResizedImageFromLMDB', resize=resize, **options)]
            for pipeline in ([dict(type='LoadImageFromLMDB', **options), resize], one):
                transforms = [TRANSFORMS.build(config) for config in pipeline]
                np.random.seed(7)
                result = copy.deepcopy(sample)
                for transform in transforms:
                    result = transform(result)
                results.append(result)
        return results

    return run


def assert_same_but_for_pixels(expected, found):
    assert found.keys() == expected.keys()
    for key in expected.keys() - {'img', 'gt_bboxes', 'gt_masks'}:
        if isinstance(expected[key], np.ndarray):
            assert np.array_equal(found[key], expected[key]), key
        else:
            assert found[key] == expected[key], key
            assert type(found[key]) is type(expected[key]), key
    assert found['img'].shape == expected['img'].shape
    assert found['img'].dtype == expected['img'].dtype
    assert found['img'].flags.c_contiguous


def psnr(a, b):
    error = np.mean((a.astype(float) - b.astype(float))**2)
    return 10 * np.log10(255**2 / max(error, 1e-10))


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('scale', SCALES, ids=str)
@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
def test_geometry_is_that_of_the_pair_and_pixels_are_close(size, scale, backend, both):
    content = encoded(smooth(*size))
    for keep_ratio in (True, False):
        resize = dict(type='Resize', scale=scale, keep_ratio=keep_ratio)
        expected, found = both(content, resize, dict(imdecode_backend=backend))
        assert_same_but_for_pixels(expected, found)
        assert found['ori_shape'] == size[::-1]
        assert psnr(found['img'], expected['img']) > MIN_PSNR


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('color_type', ['color', 'color_ignore_orientation', 'grayscale',
                                        'grayscale_ignore_orientation'])
@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
def test_turned_images_come_out_as_from_the_pair(orientation, color_type, backend, both):
    content = encoded(smooth(427, 301), orientation=orientation)
    for scale in ((200, 90), (53, 37), (800, 800)):
        expected, found = both(content, dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
                               dict(imdecode_backend=backend, color_type=color_type))
        assert_same_but_for_pixels(expected, found)
        assert psnr(found['img'], expected['img']) > MIN_PSNR


@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
@pytest.mark.parametrize('scale, divisor', [
    ((40, 40), 8), ((41, 41), 4), ((80, 80), 4), ((81, 80), 2), ((160, 150), 2)], ids=str)
def test_smallest_size_that_is_large_enough_is_decoded(backend, scale, divisor, both):
    content = encoded(noise(320, 320))
    _, found = both(content, dict(type='Resize', scale=scale), dict(imdecode_backend=backend))
    reduced = cv2.imdecode(np.frombuffer(content, np.uint8), {2: 17, 4: 33, 8: 65}[divisor])
    assert reduced.shape[0] == 320 // divisor
    assert np.array_equal(found['img'], cv2.resize(reduced, scale))


@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
@pytest.mark.parametrize('scale, keep_ratio', [
    ((320, 240), True), ((161, 121), True), ((900, 900), True), ((300, 40), False),
    ((400, 10), False)], ids=str)
def test_pixels_are_those_of_the_pair_where_half_the_size_is_too_small(backend, scale, keep_ratio,
                                                                       both):
    expected, found = both(encoded(noise(320, 240)),
                           dict(type='Resize', scale=scale, keep_ratio=keep_ratio),
                           dict(imdecode_backend=backend))
    assert_same_but_for_pixels(expected, found)
    assert np.array_equal(found['img'], expected['img'])


@pytest.mark.parametrize('content', [
    encoded(noise(320, 240), 'PNG'), encoded(noise(320, 240), 'PNG', orientation=6),
    encoded(noise(320, 240)).replace(b'\xff\xdb', b'\xff\x01\xff\xdb', 1)],
    ids=['PNG', 'turned PNG', 'JPEG with a marker that has no length'])
def test_other_files_than_plain_jpeg_have_the_pixels_of_the_pair(content, both):
    expected, found = both(content, dict(type='Resize', scale=(60, 60), keep_ratio=True))
    assert_same_but_for_pixels(expected, found)
    assert np.array_equal(found['img'], expected['img'])


@pytest.mark.parametrize('options, resize', [
    (dict(to_float32=True), {}), ({}, dict(interpolation='area')),
    ({}, dict(interpolation='nearest')), ({}, dict(interpolation='bicubic')),
    ({}, dict(scale=None, scale_factor=0.3)), ({}, dict(scale=100)),
    ({}, dict(scale=None, scale_factor=(0.3, 0.2), keep_ratio=False))], ids=str)
def test_options_of_both_transforms_are_kept(options, resize, both):
    resize = {**dict(type='Resize', scale=(200, 90), keep_ratio=True), **resize}
    expected, found = both(encoded(smooth(640, 427)), resize, options)
    assert_same_but_for_pixels(expected, found)
    assert psnr(found['img'], expected['img']) > (30 if 'nearest' in resize.values() else MIN_PSNR)


@pytest.mark.parametrize('resize', [
    dict(type='RandomResize', scale=[(60, 40), (900, 700)], keep_ratio=True),
    dict(type='RandomResize', scale=(400, 300), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='mmcv.RandomResize', scale=(400, 300), ratio_range=(0.1, 1.0),
         resize_type='mmdet.Resize'),
    dict(type='RandomChoiceResize', scales=[(60, 40), (100, 90), (900, 900)], keep_ratio=True,
         resize_type='mmdet.Resize'),
    dict(type='ResizeShortestEdge', scale=90, max_size=120, keep_ratio=True)], ids=str)
def test_random_choices_are_those_of_the_pair(resize, both):
    expected, found = both(encoded(smooth(640, 427)), resize)
    assert_same_but_for_pixels(expected, found)
    assert psnr(found['img'], expected['img']) > MIN_PSNR


@pytest.mark.parametrize('clip', [True, False])
def test_boxes_masks_and_maps_that_are_loaded_before_are_resized(clip, both):
    boxes = [[1.5, 2.5, 300.2, 400.1], [-5, 0, 700, 430], [0, 0, 640, 427]]
    polygons = [[np.array([1., 2, 30, 2, 30, 40])]] * 3
    sample = dict(gt_bboxes=HorizontalBoxes(boxes), gt_masks=PolygonMasks(polygons, 427, 640),
                  gt_seg_map=noise(640, 427)[:, :, 0])
    expected, found = both(
        encoded(smooth(640, 427)),
        dict(type='Resize', scale=(200, 90), keep_ratio=True, clip_object_border=clip),
        sample=sample)
    assert_same_but_for_pixels(expected, found)
    assert (found['gt_bboxes'].tensor == expected['gt_bboxes'].tensor).all()
    assert found['gt_bboxes'].tensor[0, 2] < 64
    assert np.array_equal(found['gt_masks'].masks, expected['gt_masks'].masks)
    assert found['gt_masks'].height == expected['gt_masks'].height == 90


def test_pipeline_of_a_data_set_gives_the_same_samples(coco128, tmp_path):
    from mmdet_bpu.datasets import pack_coco
    pack_coco(*coco128, tmp_path / 'lmdb')
    resize = dict(type='RandomChoiceResize', scales=[(333, 200), (500, 300)], keep_ratio=True,
                  resize_type='mmdet.Resize')
    rest = [dict(type='mmdet.RandomFlip', prob=0.5), dict(type='mmdet.PackDetInputs')]
    annotations = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    pair = CocoLMDBDataset(lmdb=str(tmp_path / 'lmdb'), pipeline=[
        dict(type='LoadImageFromFile'), annotations, resize, *rest])
    one = CocoLMDBDataset(lmdb=str(tmp_path / 'lmdb'), pipeline=[
        annotations, dict(type='mmdet.LoadResizedImageFromLMDB', resize=resize), *rest])
    for i in range(0, len(one), 8):
        np.random.seed(i)
        expected = pair[i]
        np.random.seed(i)
        found = one[i]
        assert found['inputs'].shape == expected['inputs'].shape
        expected, found = expected['data_samples'], found['data_samples']
        assert found.metainfo == expected.metainfo
        assert (found.gt_instances.bboxes.tensor == expected.gt_instances.bboxes.tensor).all()


def test_random_choice_is_shared_where_mmcv_shares_it(monkeypatch):
    monkeypatch.setattr(loading, 'open_store', lambda path: StoreOf(encoded(smooth(640, 427))))
    transform = LoadResizedImageFromLMDB(lmdb='train_lmdb', resize=dict(
        type='RandomResize', scale=[(60, 40), (900, 700)], keep_ratio=True))
    with cache_random_params(transform):
        shapes = {transform(dict(img_id=25))['img_shape'] for _ in range(5)}
    assert len(shapes) == 1


def test_transform_can_be_sent_to_a_worker(monkeypatch):
    monkeypatch.setattr(loading, 'open_store', lambda path: StoreOf(encoded(smooth(640, 427))))
    transform = LoadResizedImageFromLMDB(lmdb='train_lmdb', resize=ConfigDict(
        type='RandomChoiceResize', scales=[(60, 40)], keep_ratio=True))
    sent = pickle.loads(pickle.dumps(transform))
    assert np.array_equal(sent(dict(img_id=25))['img'], transform(dict(img_id=25))['img'])
    assert "scales=[(60, 40)]" in repr(sent) and "imdecode_backend='cv2'" in repr(sent)


@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
@pytest.mark.parametrize('scale', [(60, 40), (900, 900)])
@pytest.mark.parametrize('content', [b'', b'no image', encoded(smooth(320, 240))[:700]])
def test_image_that_cannot_be_decoded_is_named(content, scale, backend, monkeypatch):
    monkeypatch.setattr(loading, 'open_store', lambda path: StoreOf(content))
    options = dict(lmdb='train_lmdb', imdecode_backend=backend,
                   resize=dict(type='Resize', scale=scale, keep_ratio=True))
    with pytest.raises(BpuError, match='train_lmdb: image 25 (is empty|cannot be decoded)'):
        LoadResizedImageFromLMDB(**options)(dict(img_id=25))
    assert LoadResizedImageFromLMDB(ignore_empty=True, **options)(dict(img_id=25)) is None


RESIZE = dict(type='Resize', scale=(60, 40), keep_ratio=True)


@pytest.mark.parametrize('options, message', [
    (dict(resize=None), "config of one of .*'Resize', .*'RandomChoiceResize'.*found None"),
    (dict(resize=dict(scale=(60, 40))), 'config of one of .*found {'),
    (dict(resize=dict(type='Nonsense')), "one of .*'Resize'.*Nonsense"),
    (dict(resize={**RESIZE, 'type': 'FixScaleResize'}), "found .*'FixScaleResize'.*; use Load"),
    (dict(resize={**RESIZE, 'type': 'mmcv.Resize'}), 'of mmdet, .*mmcv.Resize'),
    (dict(resize=dict(type='RandomResize', scale=(60, 40), resize_type='FixScaleResize')),
     "resize_type='Resize', found .*FixScaleResize"),
    (dict(resize={**RESIZE, 'backend': 'pillow'}), "backend='cv2', found 'pillow'"),
    (dict(resize=RESIZE, imdecode_backend='pillow'), r"\['cv2', 'simplejpeg'\], found 'pillow'"),
    (dict(resize=RESIZE, color_type='unchanged'), "color_type='unchanged' cannot be decoded at"),
    (dict(resize=RESIZE, color_type='rgb'), "expected color_type .* found 'rgb'"),
])
def test_what_cannot_be_reduced_is_refused_at_construction(options, message):
    with pytest.raises(BpuError, match=f'LoadResizedImageFromLMDB.* {message}'):
        LoadResizedImageFromLMDB(**options)
