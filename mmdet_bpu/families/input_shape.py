"""Sizes that a deployed input may have."""
from numbers import Integral
from typing import Any

# A picture of 8K (7680 x 4320 px) and no more; what is beyond is a slip of the keyboard that would
# fill the memory of the machine.
LONGEST_SIDE, MOST_PIXELS = 1 << 14, 1 << 25
INPUT_SHAPE = (f'(height, width), two positive integers (px), none above {LONGEST_SIDE} and '
               f'together at most {MOST_PIXELS} px')


def is_input_shape(value: Any) -> bool:
    """Whether it is a (height, width), px, of a size that a detector may be built for."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_side, value)) \
        and value[0] * value[1] <= MOST_PIXELS


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < value <= LONGEST_SIDE
