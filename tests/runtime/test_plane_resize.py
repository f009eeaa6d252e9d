"""Planes at another size: bilinear between pixel centres, in integers."""
from fractions import Fraction

import cv2
import numpy as np
import pytest

from mmdet_bpu.runtime.plane_resize import resized_plane

SIZES = [((7, 9), (14, 18)), ((90, 130), (64, 96)), ((33, 47), (34, 46)), ((1, 5), (4, 3)),
         ((270, 480), (96, 160)), ((5, 1), (5, 8))]


def plane(height, width, channels=2):
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize('size, result', SIZES)
def test_it_is_opencv_s_linear(size, result):
    image = plane(*size)
    expected = cv2.resize(image, result[::-1], interpolation=cv2.INTER_LINEAR)
    found = resized_plane(image, *result)
    assert found.dtype == np.uint8 and found.shape == (*result, 2)
    assert np.abs(found.astype(int) - expected.reshape(found.shape)).max() <= 1


def weights(size, result):
    """Per result, (pixel, exact share) of its neighbours."""
    rows = []
    for index in range(result):
        position = min(max(Fraction((2 * index + 1) * size - result, 2 * result), 0), size - 1)
        low = int(position)
        rows.append([(low, 1 - (position - low)), (min(low + 1, size - 1), position - low)])
    return rows


@pytest.mark.parametrize('size, result', SIZES[:4])
def test_it_is_the_exact_mean_of_four_to_half_a_level_and_a_little(size, result):
    image = plane(*size, channels=1)
    found = resized_plane(image, *result)[..., 0].tolist()
    for y, down in enumerate(weights(size[0], result[0])):
        for x, along in enumerate(weights(size[1], result[1])):
            exact = sum(int(image[row, column, 0]) * a * b for row, a in down for column, b in along)
            # Two fractions of 2^-12 at most, over 255 levels each.
            assert abs(found[y][x] - exact) <= Fraction(1, 2) + Fraction(2 * 255, 2**12)


def test_a_plane_of_that_size_is_the_plane_itself():
    image = plane(6, 8)
    assert resized_plane(image, 6, 8) is image


def test_extremes_stay():
    white = np.full((3, 5, 1), 255, np.uint8)
    assert (resized_plane(white, 8, 7) == 255).all() and (resized_plane(white * 0, 8, 7) == 0).all()
