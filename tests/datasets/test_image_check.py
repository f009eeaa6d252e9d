import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_bpu.datasets.decoding import decode_image
from mmdet_bpu.datasets.image_check import ImageFault, check_image

SIZE = (40, 30)  # px, width and height


def encoded(kind, size=SIZE, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_with_thumbnail():
    """A JPEG whose EXIF data hold another whole JPEG, and where that ends."""
    thumbnail = encoded('JPEG', (16, 12))
    jpeg_at = struct.pack('<HHLL', 0x0201, 4, 1, 44)  # offset in the TIFF data
    jpeg_bytes = struct.pack('<HHLL', 0x0202, 4, 1, len(thumbnail))
    tiff = (struct.pack('<2sHLHL', b'II', 42, 8, 0, 14)
            + struct.pack('<H', 2) + jpeg_at + jpeg_bytes + struct.pack('<L', 0) + bytes(4)
            + thumbnail)
    start = b'\xff\xd8\xff\xe1' + struct.pack('>H', 8 + len(tiff)) + b'Exif\0\0' + tiff
    return start + encoded('JPEG')[2:], len(start)


def fault(content, check):
    """Why the image is refused, None if it is not."""
    try:
        check_image(memoryview(content), check, *SIZE)
    except ImageFault as error:
        return str(error)


JPEGS = {'baseline': encoded('JPEG'), 'progressive': encoded('JPEG', progressive=True),
         'restart marks': encoded('JPEG', restart_marker_rows=1),
         'end mark in a comment': encoded('JPEG', comment=b'\xff\xd9 \xff\xda \xff\xd9'),
         'thumbnail': jpeg_with_thumbnail()[0]}


@pytest.mark.parametrize('name', JPEGS)
def test_jpeg_cut_anywhere_is_refused(name):
    whole = JPEGS[name]
    assert [fault(whole, check) for check in ('none', 'header', 'decode')] == [None] * 3
    for length in {*range(1, len(whole), 29), len(whole) - 2, len(whole) - 1}:
        for check in ('header', 'decode'):
            assert 'is truncated' in fault(whole[:length], check) or \
                'is not a readable image' in fault(whole[:length], check)
        assert fault(whole[:length], 'none') is None


def test_whole_thumbnail_does_not_hide_that_the_image_is_cut():
    whole, end_of_thumbnail = jpeg_with_thumbnail()
    assert whole[end_of_thumbnail - 2:end_of_thumbnail] == b'\xff\xd9'
    assert 'is not a readable image' in fault(whole[:end_of_thumbnail], 'header')
    assert 'is truncated' in fault(whole[:-100], 'header')


@pytest.mark.parametrize('name', JPEGS)
@pytest.mark.parametrize('after', [
    b'\0', bytes(5000), b'\xff', b'\xff\xda', b'\xff\xd9\xff\xda\0', encoded('JPEG')[:400],
    random.Random(0).randbytes(200_000)],
    ids=['a zero', 'zeros', 'mark', 'scan', 'end and scan', 'cut JPEG', 'a video'])
def test_bytes_after_the_end_of_a_jpeg_are_accepted(name, after):
    assert fault(JPEGS[name] + after, 'header') is None
    assert fault(JPEGS[name] + after, 'decode') is None


@pytest.mark.parametrize('lost', [1, 4, 8, 12, 1000])
def test_cut_png_is_refused(lost):
    whole = encoded('PNG')
    for check in ('header', 'decode'):
        assert fault(whole, check) is None
        assert fault(whole + b'more', check) is None
        assert 'is truncated' in fault(whole[:-lost], check)


def test_flipped_bit_in_the_data_of_a_png_is_found_by_decoding_alone():
    content = bytearray(encoded('PNG'))
    content[1000] ^= 1
    assert fault(content, 'header') is None
    assert 'cannot be decoded by OpenCV' in fault(content, 'decode')


def test_wrong_scan_data_of_a_jpeg_that_the_decoder_gets_over_are_accepted():
    content = bytearray(encoded('JPEG'))
    content[-400:-300] = bytes(100)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), 1).shape == (*SIZE[::-1], 3)
    for check in ('header', 'decode'):
        assert fault(content, check) is None


@pytest.mark.parametrize('content', [
    b'DDS ' + bytes(200), b'\0\0\0\x1cftypavif' + bytes(100)], ids=['DDS', 'AVIF'])
def test_format_whose_reader_fails_in_its_own_way_is_a_fault(content):
    assert 'is not a readable image' in fault(content, 'header')


def test_image_of_many_pixels_is_no_fault(recwarn):
    huge = bytearray(encoded('PNG'))
    huge[16:24] = struct.pack('>LL', 20000, 20000)  # width and height in its header chunk
    huge[29:33] = struct.pack('>L', zlib.crc32(huge[12:29]))
    assert check_image(memoryview(bytes(huge)), 'header', 20000, 20000) == ['not JPEG']
    assert not recwarn.list
    assert Image.MAX_IMAGE_PIXELS


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(kind, exif=exif)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_size_is_that_of_what_training_decodes(kind, orientation):
    content = turned(kind, orientation)
    seen = decode_image(content).shape[1::-1]
    for check in ('header', 'decode'):
        for size in (SIZE, SIZE[::-1]):
            notices = set(check_image(content, check, *size)) - {'not JPEG'}
            assert notices == (set() if size == seen else {'sides exchanged'})


def test_format_that_only_another_reader_knows_is_refused():
    content = encoded('PCX')
    for check in ('header', 'decode'):
        assert 'cannot be decoded by OpenCV' in fault(content, check)
    assert fault(content, 'none') is None
