"""YUV and RGB in integers against OpenCV and against the plain rationals of the standards."""
import itertools
from fractions import Fraction

import cv2
import numpy as np
import pytest

from mmdet_bpu.runtime.color_conversion import (MATRICES, RANGES, gray_of_luma, luma_of_gray,
                                                rgb_of_yuv, unchanged, yuv_of_rgb)

# ITU-R BT.601-7 and BT.709-6: weights of red and blue in the luma.
WEIGHTS = {'bt601': ('0.299', '0.114'), 'bt709': ('0.2126', '0.0722')}
ENDS = [0, 1, 15, 16, 17, 127, 128, 129, 234, 235, 236, 239, 240, 241, 254, 255]
EDGES = np.array(list(itertools.product(ENDS, repeat=3)), np.uint8)


@pytest.fixture(scope='module')
def triples():
    """10^6 random triples of bytes, and all extremes."""
    drawn = np.random.default_rng(0).integers(0, 256, (10**6, 3), dtype=np.uint8)
    return np.concatenate([drawn, EDGES])


def apart(a, b):
    return int(np.abs(a.astype(int) - b).max())


def by_nv12_codes(yuv):
    """RGB of OpenCV for one triple to each 2 x 2 px of an NV12 frame."""
    width = 1024
    padded = np.zeros((-(-len(yuv) // width), width, 3), np.uint8)
    padded.reshape(-1, 3)[:len(yuv)] = yuv
    luma = padded[..., 0].repeat(2, 0).repeat(2, 1)
    chroma = padded[..., 1:].reshape(len(padded), 2 * width)
    rgb = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
    assert (rgb[::2, ::2] == rgb[1::2, 1::2]).all()
    return rgb[::2, ::2].reshape(-1, 3)[:len(yuv)]


def rational(yuv, levels, matrix):
    """RGB of one triple, exact; luma below black is black."""
    red, blue = map(Fraction, WEIGHTS[matrix])
    y, u, v = (Fraction(int(value)) for value in yuv)
    if levels == 'video':
        y = (max(y, 16) - 16) * 255 / 219
        u, v = ((each - 128) * 255 / 224 for each in (u, v))
    else:
        u, v = u - 128, v - 128
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return [min(max(each, 0), 255) for each in (r, (y - red * r - blue * b) / (1 - red - blue), b)]


def test_full_range_bt601_is_opencv_s_ycrcb(triples):
    expected = cv2.cvtColor(triples[None][..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)[0]
    assert apart(rgb_of_yuv('full', 'bt601').apply(triples), expected) <= 1


def test_video_range_bt601_is_opencv_s_nv12(triples):
    assert apart(rgb_of_yuv('video', 'bt601').apply(triples), by_nv12_codes(triples)) <= 1


@pytest.mark.parametrize('levels', RANGES)
@pytest.mark.parametrize('matrix', MATRICES)
def test_every_conversion_rounds_the_rationals_of_its_standard(triples, levels, matrix):
    some = np.concatenate([triples[:1000], EDGES[::5]])
    found = rgb_of_yuv(levels, matrix).apply(some)
    for yuv, rgb in zip(some, found):
        for value, exact in zip(rgb.tolist(), rational(yuv, levels, matrix)):
            assert abs(value - exact) <= Fraction(1, 2) + Fraction(1, 1000)


def test_all_triples_of_bt709_are_near_float64(triples):
    for levels in RANGES:
        luma, chroma, black = (1, 1, 0) if levels == 'full' else (255 / 219, 255 / 224, 16)
        y = (np.maximum(triples[:, 0], np.float64(black)) - black) * luma
        u, v = ((triples[:, k] - np.float64(128)) * chroma for k in (1, 2))
        r, b = y + 2 * (1 - 0.2126) * v, y + 2 * (1 - 0.0722) * u
        g = (y - 0.2126 * r - 0.0722 * b) / (1 - 0.2126 - 0.0722)
        expected = np.clip(np.stack([r, g, b], -1), 0, 255)
        assert np.abs(rgb_of_yuv(levels, 'bt709').apply(triples) - expected).max() <= 0.501


def test_rgb_to_yuv_is_opencv_s(triples):
    full = cv2.cvtColor(triples[None], cv2.COLOR_RGB2YCrCb)[0][:, [0, 2, 1]]
    assert apart(yuv_of_rgb('full', 'bt601').apply(triples), full) <= 1
    some = triples[-len(EDGES):]
    blocks = some[:4096].reshape(64, 64, 3).repeat(2, 0).repeat(2, 1)
    planes = cv2.cvtColor(blocks, cv2.COLOR_RGB2YUV_I420)
    u, v = (planes[128 + 32 * k:160 + 32 * k].reshape(64, 64) for k in (0, 1))
    video = np.stack([planes[:128:2, ::2], u, v], -1).reshape(-1, 3)
    assert apart(yuv_of_rgb('video', 'bt601').apply(some[:4096]), video) <= 1


@pytest.mark.parametrize('levels', RANGES)
@pytest.mark.parametrize('matrix', MATRICES)
def test_colors_come_back(triples, levels, matrix):
    back = rgb_of_yuv(levels, matrix).apply(yuv_of_rgb(levels, matrix).apply(triples))
    assert apart(back, triples) <= (1 if levels == 'full' else 2)


def test_grays_have_no_chroma_and_come_back():
    grays = np.arange(256, dtype=np.uint8)[:, None]
    for levels, matrix in itertools.product(RANGES, MATRICES):
        yuv = yuv_of_rgb(levels, matrix).apply(grays.repeat(3, 1))
        assert (yuv[:, 1:] == 128).all()
        assert np.array_equal(yuv[:, :1], luma_of_gray(levels).apply(grays))
        assert apart(gray_of_luma(levels).apply(yuv[:, :1]), grays) <= (0 if levels == 'full' else 1)


def test_bytes_that_are_left_as_they_are():
    triples = EDGES[::7]
    assert np.array_equal(unchanged(3).apply(triples), triples)


def test_no_sum_leaves_int32():
    for conversion in (*(make(levels, matrix) for make in (rgb_of_yuv, yuv_of_rgb)
                         for levels in RANGES for matrix in MATRICES), unchanged(3)):
        for row, offset in zip(conversion.matrix, conversion.offset):
            assert sum(map(abs, row)) * 255 + offset < 2**31
