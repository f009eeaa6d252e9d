"""Oracle of the tests of deformable convolution."""
import itertools
import math

import numpy as np
import pytest


@pytest.fixture(scope='session')
def direct_deform_conv2d():
    """Deformable convolution by its formula: numpy arrays in, float64 loops, float64 out."""
    return _direct


def _direct(x, offset, weight, mask=None, bias=None, *, stride=(1, 1), padding=(0, 0),
            dilation=(1, 1), groups=1, offset_groups=1):
    x, offset, weight = (np.asarray(a, dtype=np.float64) for a in (x, offset, weight))
    batch, channels = x.shape[:2]
    outputs, group_channels, *kernel = weight.shape
    size = offset.shape[2:]
    result = np.zeros((batch, outputs, *size))
    for n, o, oy, ox in itertools.product(range(batch), range(outputs), *map(range, size)):
        first = o // (outputs // groups) * group_channels
        total = 0.0 if bias is None else float(bias[o])
        for c, ky, kx in itertools.product(range(group_channels), *map(range, kernel)):
            group = (first + c) // (channels // offset_groups)
            tap = (group * kernel[0] + ky) * kernel[1] + kx
            y = oy * stride[0] - padding[0] + ky * dilation[0] + offset[n, 2 * tap, oy, ox]
            z = ox * stride[1] - padding[1] + kx * dilation[1] + offset[n, 2 * tap + 1, oy, ox]
            factor = 1.0 if mask is None else float(mask[n, tap, oy, ox])
            total += weight[o, c, ky, kx] * factor * _hat_sum(x[n, first + c], y, z)
        result[n, o, oy, ox] = total
    return result


def _hat_sum(image, y, x):
    """Pixels around (y, x), each with the product of its hat functions; outside there are none."""
    height, width = image.shape
    if not (-1 < y < height and -1 < x < width):
        return 0.0
    return sum(image[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
               for i in (math.floor(y), math.floor(y) + 1)
               for j in (math.floor(x), math.floor(x) + 1)
               if 0 <= i < height and 0 <= j < width)
