"""``LoadImageFromLMDB`` beside mmcv's loader of files, on every kind of image file."""
import io
from contextlib import contextmanager

import mmdet.datasets.transforms  # noqa: F401  (registers the stock transforms)
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmdet_bpu.datasets import LoadImageFromLMDB, loading, open_store
from mmdet_bpu.errors import BpuError

COLOR_TYPES = ['color', 'grayscale', 'unchanged', 'color_ignore_orientation',
               'grayscale_ignore_orientation']


def image_file(kind, mode='RGB', orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, 'RGBA').convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


FILES = {'colour.jpg': image_file('JPEG'), 'grey.jpg': image_file('JPEG', 'L'),
         'turned.jpg': image_file('JPEG', orientation=6), 'cmyk.jpg': image_file('JPEG', 'CMYK'),
         'colour.png': image_file('PNG'), 'alpha.png': image_file('PNG', 'RGBA'),
         'grey.png': image_file('PNG', 'L')}


class StoreOf:
    """A database with one image of any content, which a packer might have refused."""

    def __init__(self, content):
        self.content = content

    @contextmanager
    def image(self, image_id):
        yield memoryview(self.content).toreadonly()


def load(monkeypatch, content, **options):
    monkeypatch.setattr(loading, 'open_store', lambda path: StoreOf(content))
    return LoadImageFromLMDB(lmdb='train_lmdb', **options)(dict(img_id=25))


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('color_type', COLOR_TYPES)
@pytest.mark.parametrize('backend', ['cv2', 'pillow', 'simplejpeg'])
@pytest.mark.parametrize('to_float32', [False, True])
def test_result_is_that_of_the_loader_of_files(name, color_type, backend, to_float32, monkeypatch,
                                               tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    options = dict(color_type=color_type, to_float32=to_float32)
    expected = LoadImageFromFile(
        imdecode_backend='cv2' if backend == 'simplejpeg' else backend,
        **options)(dict(img_path=str(tmp_path / name)))
    found = load(monkeypatch, FILES[name], imdecode_backend=backend, **options)
    assert found['img'].dtype == expected['img'].dtype
    assert np.array_equal(found['img'], expected['img'])
    for key in ('img_shape', 'ori_shape'):
        assert found[key] == expected[key]


def test_image_of_a_real_database_is_decoded_by_libjpeg_turbo(packed):
    for image_id in open_store(packed).read_index().ids.tolist():
        by_turbo, by_opencv = (
            LoadImageFromLMDB(lmdb=str(packed), imdecode_backend=backend)(dict(img_id=image_id))
            for backend in ('simplejpeg', 'cv2'))
        assert np.array_equal(by_turbo['img'], by_opencv['img'])


@pytest.mark.parametrize('backend', ['cv2', 'pillow', 'simplejpeg'])
@pytest.mark.parametrize('content, reason', [
    (b'', r'is empty \(0 bytes\)'), (b'GIF', 'cannot be decoded by'),
    (FILES['colour.jpg'][:300], 'cannot be decoded by'),
    (FILES['colour.png'][:300], 'cannot be decoded by')])
def test_image_that_cannot_be_decoded_is_named(backend, content, reason, monkeypatch):
    with pytest.raises(BpuError, match=f'train_lmdb: image 25 {reason}.*; replace the file and '
                       'pack again'):
        load(monkeypatch, content, imdecode_backend=backend)
    assert load(monkeypatch, content, imdecode_backend=backend, ignore_empty=True) is None


def test_ignore_empty_does_not_hide_a_sample_without_image_id(packed):
    with pytest.raises(KeyError, match='img_id'):
        LoadImageFromLMDB(lmdb=str(packed), ignore_empty=True)({})


@pytest.mark.parametrize('options, message', [
    (dict(imdecode_backend='jpeg4py'), r"one of \['cv2', .*, 'simplejpeg'\], found 'jpeg4py'"),
    (dict(color_type='rgb'), r"one of \['color', .*'unchanged'.*\], found 'rgb'"),
    (dict(backend_args=dict(backend='petrel')), "expected backend_args=None, found .*petrel"),
])
def test_options_that_do_not_exist_are_refused_at_construction(options, message):
    with pytest.raises(BpuError, match=f'LoadImageFromLMDB.* {message}'):
        LoadImageFromLMDB(**options)
