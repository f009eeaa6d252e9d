"""Files of pictures are read within a budget, and never waited for."""
import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from mmdet_bpu.datasets import picture_files
from mmdet_bpu.datasets.picture_files import find_pictures, read_picture, shown
from mmdet_bpu.errors import BpuError

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
PNG = cv2.imencode('.png', IMAGE)[1].tobytes()


def declaring(width, height):
    """A PNG file whose header declares a size, its checksum valid."""
    chunk = b'IHDR' + struct.pack('>II', width, height) + PNG[24:29]
    return PNG[:12] + chunk + struct.pack('>I', zlib.crc32(chunk)) + PNG[33:]


def test_a_picture_is_read_as_opencv_reads_it(tmp_path):
    (tmp_path / 'a.png').write_bytes(PNG)
    assert np.array_equal(read_picture(tmp_path / 'a.png'), IMAGE)


@pytest.mark.parametrize('content, words', [
    (b'', r'cannot be decoded \(0 bytes\)'), (b'GIF89a', 'cannot be decoded'),
    (declaring(1 << 15, (1 << 15) + 1), 'expected at most 134217728 px'),
    (declaring(1 << 17, 1), 'found 131072 x 1; make it smaller'),
    (declaring(0, 5), 'cannot be decoded'), (PNG[:60], 'cannot be decoded')])
def test_what_cannot_be_decoded_is_refused_before_it_is_allocated(tmp_path, content, words):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(BpuError, match=f'picture .*a.png.*{words}'):
        read_picture(tmp_path / 'a.png')


def test_a_file_is_not_read_beyond_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, 'MOST_BYTES', 100)
    (tmp_path / 'a.png').write_bytes(PNG)
    with pytest.raises(BpuError, match=f'expected at most 100 bytes, found {len(PNG)}'):
        read_picture(tmp_path / 'a.png')


def test_a_pipe_is_not_waited_for_and_a_link_to_nothing_is_named(tmp_path):
    os.mkfifo(tmp_path / 'a.png')
    (tmp_path / 'b.png').symlink_to('b.png')
    assert [file.path.name for file in find_pictures(tmp_path)] == ['a.png', 'b.png']
    for name, words in (('a.png', 'found a pipe'), ('b.png', r'symbolic links, a link\)')):
        with pytest.raises(BpuError, match=words):
            read_picture(tmp_path / name)


def test_a_name_that_is_no_utf_8_can_be_shown():
    assert shown(os.fsdecode(b'\xffa.png')) == '\\udcffa.png'


@pytest.mark.parametrize('path', ['gone', 'n' * 300, 'a\0b'])
def test_a_path_that_is_not_there_is_refused(tmp_path, path):
    with pytest.raises(BpuError, match='not found|cannot be read'):
        find_pictures(tmp_path / path)
