"""What follows a product, one Python integer at a time."""
from fractions import Fraction

import numpy as np

from mmdet_bpu.program.dtypes import INTEGER_RANGES


def scaled(value: int, multiplier: int, shift: int) -> int:
    return round(Fraction(int(value) * multiplier) / Fraction(2)**shift)


def finish(acc: np.ndarray, attrs: dict, residual: np.ndarray = None) -> np.ndarray:
    """The epilogue, one Python integer at a time, over the last dimension."""
    low, high = INTEGER_RANGES[attrs['out_dtypes'][0]]
    out = np.empty(acc.shape, object)

    def pick(name, channel):
        values = attrs[name]
        return values[channel % len(values)]
    for index in np.ndindex(acc.shape):
        channel, value = index[-1], int(acc[index])
        if residual is not None:
            value += scaled(residual[index], pick('residual_multiplier', channel),
                            pick('residual_shift', channel))
        assert abs(value) < 2**31
        if attrs.get('relu'):
            value = max(value, 0)
        value = scaled(value, pick('multiplier', channel), pick('shift', channel))
        out[index] = min(max(value, low), high)
    return out.astype(np.int64)
