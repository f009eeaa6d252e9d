"""Arrays that are no pictures are refused in our words, whoever gives them."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.input_stage import int8_image
from mmdet_bpu.runtime.picture_check import check_picture

IMAGE = np.zeros((4, 6, 3), np.uint8)
CONTRACT = dict(
    inputs=[dict(scale=0.5)], preprocessing=dict(
        mean=[0.0] * 3, std=[1.0] * 3, color_order='rgb',
        resize=dict(height=4, width=6, keep_ratio=False, interpolation='bilinear')))


@pytest.mark.parametrize('image, words', [
    (None, 'found NoneType'), (IMAGE.tolist(), 'found list'), ('a.png', 'found str'),
    (IMAGE.astype(np.float32), 'float32'), (np.full(IMAGE.shape, np.nan), 'float64'),
    (IMAGE.astype(object), 'object'), (IMAGE.astype(np.int8), 'int8'), (IMAGE.astype(bool), 'bool'),
    (IMAGE[:0], r'\(0, 6, 3\)'), (IMAGE[None], r'\(1, 4, 6, 3\)'), (IMAGE[..., 0], 'found 1'),
    (IMAGE[..., :2], '3 channels, found 2'), (IMAGE[0, 0], r'\(3,\)')], ids=str)
def test_what_is_no_picture_is_refused(image, words):
    with pytest.raises(BpuError, match=f'picture: expected a picture as a uint8.*{words}'):
        int8_image(image, CONTRACT)


def test_a_gray_network_takes_gray_and_coloured_pictures():
    for image in (IMAGE, IMAGE[..., 0], IMAGE[..., :1]):
        check_picture(image, 1, 'gray')
    with pytest.raises(BpuError, match='of 1 or 3 channels, found 2'):
        check_picture(IMAGE[..., :2], 1, 'gray')
