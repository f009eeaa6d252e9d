"""The oracle is OpenCV, called directly."""
import io
import struct
import sys
import tracemalloc

import cv2
import mmcv
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdet_bpu.datasets.decoding import (BACKENDS, COLOR_TYPES, DIVISORS, DecodeError,
                                         check_decoder, decode_image, decode_reduced,
                                         read_jpeg_header)
from mmdet_bpu.errors import BpuError

SIZES = [(1, 1), (2, 3), (7, 5), (8, 16), (33, 31), (64, 48), (17, 200)]  # width, height in px
FLAGS = dict(color=cv2.IMREAD_COLOR, grayscale=cv2.IMREAD_GRAYSCALE, unchanged=cv2.IMREAD_UNCHANGED,
             color_ignore_orientation=cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
             grayscale_ignore_orientation=cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
ORIENTATION, SHORT, LONG = 0x0112, 3, 4
XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'


def picture(width=33, height=31, mode='RGB'):
    channels = dict(L=(), RGB=(3, ), CMYK=(4, ), RGBA=(4, ))[mode]
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, *channels), np.uint8)
    return Image.fromarray(pixels, mode)


def encoded(image, kind='JPEG', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(value, kind=SHORT, endian='<', count=1, entries=1):
    """A TIFF header and one directory with nothing but the orientation."""
    field = struct.pack(endian + ('H' if kind == SHORT else 'I'), value).ljust(4, b'\0')
    return (b'II' if endian == '<' else b'MM') + struct.pack(
        endian + 'HIHHHI', 42, 8, entries, ORIENTATION, kind, count) + field + bytes(4)


def app1(payload):
    return b'\xff\xe1' + struct.pack('>H', len(payload) + 2) + payload


def with_segments(jpeg, *payloads):
    return jpeg[:2] + b''.join(map(app1, payloads)) + jpeg[2:]


def oriented(jpeg, value, **options):
    return with_segments(jpeg, b'Exif\0\0' + tiff(value, **options))


def by_opencv(content, color_type='color'):
    return cv2.imdecode(np.frombuffer(content, np.uint8), FLAGS[color_type])


def assert_decodes_as_opencv(content, backend='simplejpeg'):
    for color_type in COLOR_TYPES:
        found = decode_image(memoryview(content), color_type, backend)
        expected = by_opencv(content, color_type)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert np.array_equal(found, expected), color_type


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('options', [
    dict(quality=95, subsampling=0), dict(subsampling=1), dict(subsampling=2, quality=30),
    dict(progressive=True), dict(restart_marker_blocks=1)], ids=str)
def test_jpeg_has_the_pixels_of_opencv(size, mode, options):
    assert_decodes_as_opencv(encoded(picture(*size, mode), **options))


def test_coco_images_have_the_pixels_of_opencv(coco128):
    paths = sorted(coco128.img_dir.glob('*.jpg'))
    assert len(paths) == 128
    for path in paths:
        content = path.read_bytes()
        assert np.array_equal(decode_image(content, 'color', 'simplejpeg'), by_opencv(content))


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('endian', ['<', '>'])
@pytest.mark.parametrize('value', range(10))
def test_orientation_is_applied_as_by_opencv(size, endian, value):
    content = oriented(encoded(picture(*size)), value, endian=endian)
    assert_decodes_as_opencv(content)
    upright = decode_image(content, 'color', 'simplejpeg')
    assert upright.shape[:2] == (size if 5 <= value <= 8 else size[::-1])


def test_orientation_that_a_library_writes_is_applied():
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    exif[0x010F] = 'a camera'
    content = encoded(picture(), exif=exif)
    assert not np.array_equal(by_opencv(content), by_opencv(content, 'color_ignore_orientation'))
    assert_decodes_as_opencv(content)


EXIF = b'Exif\0\0' + tiff(6)


@pytest.mark.parametrize('payloads', [
    [XMP], [XMP, EXIF], [EXIF, XMP], [b'Exif\0\0' + tiff(1), EXIF], [EXIF, b'Exif\0\0' + tiff(3)],
    [b'Exif\0\0' + tiff(6, kind=LONG)], [b'Exif\0\0' + tiff(6, kind=LONG, endian='>')],
    [b'Exif\0\0' + tiff(6, count=2)], [b'Exif\0\0' + tiff(6, entries=5)], [b'Exif\0\0' + b'II'],
    [b'Exif\0\xff' + tiff(6)], [b'EXIF\0\0' + tiff(6)], [EXIF[:20]], [b''], [b'', EXIF],
    [EXIF + bytes(65000)]])
def test_doubtful_orientation_is_read_as_by_opencv(payloads):
    assert_decodes_as_opencv(with_segments(encoded(picture()), *payloads))


@given(st.lists(st.one_of(
    st.binary(max_size=40), st.binary(max_size=40).map(lambda end: EXIF[:14] + end),
    st.integers(0, len(EXIF) - 1).flatmap(lambda at: st.integers(0, 255).map(
        lambda byte: EXIF[:at] + bytes([byte]) + EXIF[at + 1:]))), max_size=3))
@settings(max_examples=200, deadline=None)
def test_damaged_exif_is_read_as_by_opencv(payloads):
    content = with_segments(encoded(picture(9, 6)), *payloads)
    assert np.array_equal(decode_image(content, 'color', 'simplejpeg'), by_opencv(content))


@pytest.mark.parametrize('content', [
    encoded(picture(), 'PNG'), encoded(picture(mode='L'), 'PNG'), encoded(picture(), 'BMP'),
    encoded(picture(mode='RGBA'), 'PNG'), encoded(picture(), 'WEBP', lossless=True),
    encoded(picture(mode='CMYK')), encoded(picture(), keep_rgb=True),
    encoded(picture()) + b'bytes behind the image', encoded(picture())[:-2] + b'\0\0\xff\xd9',
    encoded(picture()).replace(b'\xff\xe0', b'\xff\xff\xff\xe0'),
], ids=['PNG', 'grey PNG', 'BMP', 'RGBA', 'WEBP', 'CMYK', 'RGB in JPEG', 'trailing bytes',
        'bytes in front of a marker', 'fill bytes'])
def test_whatever_is_no_plain_jpeg_is_decoded_as_by_opencv(content):
    assert_decodes_as_opencv(content)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_jpeg_is_decoded_as_by_opencv_or_refused(data):
    content = bytearray(encoded(picture(40, 24)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[:data.draw(st.sampled_from([len(content), 700, 300]))])
    try:
        expected = by_opencv(content)
    except cv2.error:
        expected = None
    if expected is None:
        with pytest.raises(DecodeError):
            decode_image(content, 'color', 'simplejpeg')
    else:
        assert np.array_equal(decode_image(content, 'color', 'simplejpeg'), expected)


@pytest.mark.parametrize('backend', ['cv2', 'pillow', None])
@pytest.mark.parametrize('color_type', COLOR_TYPES)
def test_other_backends_are_those_of_mmcv(backend, color_type):
    content = oriented(encoded(picture()), 6)
    assert np.array_equal(decode_image(content, color_type, backend),
                          mmcv.imfrombytes(content, flag=color_type, backend=backend))


@pytest.mark.parametrize('backend', ['cv2', 'pillow', 'simplejpeg'])
@pytest.mark.parametrize('content, message', [
    (b'', r'is empty \(0 bytes\)'), (b'no image', 'cannot be decoded by'),
    (b'\xff\xd8', 'cannot be decoded by'), (encoded(picture())[:200], 'cannot be decoded by')])
def test_what_is_no_image_is_refused(backend, content, message):
    with pytest.raises(DecodeError, match=message):
        decode_image(content, 'color', backend)


@pytest.mark.parametrize('wrap', [bytes, bytearray, memoryview,
                                  lambda content: np.frombuffer(content, np.uint8)])
@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
def test_any_buffer_is_taken_without_a_copy(wrap, backend):
    content = wrap(encoded(picture()) + bytes(20_000_000))
    decode_image(content, 'color', backend)  # what is made once is not counted
    tracemalloc.start()
    try:
        decode_image(content, 'color', backend)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_header_gives_stored_size_and_orientation():
    header = read_jpeg_header(oriented(encoded(picture(64, 48)), 6))
    assert (header.height, header.width, header.components, header.orientation()) == (48, 64, 3, 6)
    assert read_jpeg_header(encoded(picture(5, 7, 'L'), progressive=True))[:3] == (7, 5, 1)
    assert read_jpeg_header(encoded(picture())).orientation() == 1


def test_header_of_no_jpeg_is_none():
    jpeg = encoded(picture())
    frame = jpeg.index(b'\xff\xc0')
    lossless = jpeg[:frame] + b'\xff\xc3' + jpeg[frame + 2:]
    no_height = jpeg[:frame + 5] + b'\0\0' + jpeg[frame + 7:]
    for content in (b'', b'\xff\xd8', encoded(picture(), 'PNG'), jpeg[:100], lossless, no_height,
                    jpeg[:2] + b'\0' + jpeg[2:]):
        assert read_jpeg_header(content) is None


@pytest.mark.parametrize('backend', ['cv2', 'simplejpeg'])
@pytest.mark.parametrize('divisor', DIVISORS)
@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_reduced_image_is_that_of_opencv_as_stored(backend, divisor, mode):
    flag = dict(color={2: 17, 4: 33, 8: 65}, grayscale={2: 16, 4: 32, 8: 64})  # IMREAD_REDUCED_*
    for width, height in [(64, 48), (65, 47), (200, 17)]:
        content = oriented(encoded(picture(width, height, mode)), 6)
        header = read_jpeg_header(content)
        for color_type in ('color', 'grayscale'):
            found = decode_reduced(content, header, divisor, color_type, backend)
            expected = cv2.imdecode(np.frombuffer(content, np.uint8), flag[color_type][divisor]
                                    | cv2.IMREAD_IGNORE_ORIENTATION)
            assert found.shape[:2] == (-(-height // divisor), -(-width // divisor))
            assert np.array_equal(found, expected)


def test_image_with_stray_bytes_is_reduced_as_by_opencv():
    content = encoded(picture(64, 64))[:-2] + b'\0\0\xff\xd9'
    with pytest.raises(ValueError, match='extraneous bytes'):
        simplejpeg.decode_jpeg(content)
    header = read_jpeg_header(content)
    assert np.array_equal(decode_reduced(content, header, 2, 'color', 'simplejpeg'),
                          decode_reduced(content, header, 2, 'color', 'cv2'))


def test_unknown_names_are_refused_with_those_that_are_known():
    with pytest.raises(BpuError, match=r"Load: expected imdecode_backend .*'cv2'.*'simplejpeg'.*"
                                       "found 'cv3'"):
        check_decoder('Load', 'cv3', 'color')
    with pytest.raises(BpuError, match=r"Load: expected color_type .*'color'.*'unchanged'.*found "
                                       "'colour'"):
        check_decoder('Load', 'cv2', 'colour')


@pytest.mark.parametrize('backend, module, install', [
    ('simplejpeg', 'simplejpeg', r'pip install "mmdet_bpu\[turbo\]" or pip install simplejpeg'),
    ('turbojpeg', 'turbojpeg', 'pip install PyTurboJPEG'),
    ('tifffile', 'tifffile', 'pip install tifffile')])
def test_missing_package_is_named_with_how_to_get_it(backend, module, install, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # makes an import of it fail
    with pytest.raises(BpuError, match=f"imdecode_backend='{backend}' needs .*{install}"):
        check_decoder('Load', backend, 'color')


def test_installed_backends_are_accepted():
    for backend in (None, 'cv2', 'pillow', 'simplejpeg'):
        for color_type in COLOR_TYPES:
            check_decoder('Load', backend, color_type)
    assert set(COLOR_TYPES) == set(FLAGS)
    assert BACKENDS[-1] == 'simplejpeg'
