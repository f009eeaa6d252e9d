"""How a config normalises pictures: mean and standard deviation of every channel."""
import math
from numbers import Integral, Real
from typing import Any, List, NamedTuple, Sequence

from mmengine.config import Config

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.camera_format import RECIPE, YUV
from mmdet_bpu.families.config_reading import data_preprocessor
from mmdet_bpu.families.picture_format import agreed_camera, input_channels

PLACE = 'model.data_preprocessor'


class Normalisation(NamedTuple):
    """``(picture - mean) / std``, per channel in the order of the network's input.

    Attributes:
        mean (list[float]): On the scale of the picture (0 to 255).
        std (list[float]): As the mean; above 0.
    """
    mean: List[float]
    std: List[float]


def normalisation(cfg: Config) -> Normalisation:
    """What a config's data preprocessor does to the values of a picture.

    Raises:
        BpuError: A mean or a standard deviation that is no finite number, a deviation that is not
            above 0, or another number of them than the picture has channels.
    """
    preprocessor, channels = data_preprocessor(cfg), input_channels(cfg)
    camera = agreed_camera(cfg)
    if camera is not None and camera.model == YUV:
        return Normalisation([RECIPE] * channels, [RECIPE] * channels)
    mean, std = (per_channel(preprocessor.get(name) or [default], channels, f'{PLACE}.{name}')
                 for name, default in (('mean', 0.0), ('std', 1.0)))
    if min(std) <= 0:
        raise BpuError(f'field {PLACE}.std: expected numbers above 0, found {list(std)}')
    return Normalisation(mean, std)


def per_channel(values: Sequence[float], channels: int, field: str) -> List[float]:
    """One value for each channel; a single one stands for all of them.

    Raises:
        BpuError: Not finite numbers, or neither one nor as many as there are channels.
    """
    if not isinstance(values, (list, tuple)) or not all(map(is_finite, values)):
        raise BpuError(f'field {field}: expected a list of finite numbers, found {values!r}')
    if len(values) not in (1, channels):
        raise BpuError(f'field {field}: expected 1 number or {channels}, one for each channel of '
                       f'the picture, found {len(values)}')
    values = [float(value) for value in values]
    return values * channels if len(values) == 1 else values


def pad_size_divisor(cfg: Config) -> int:
    """What the data preprocessor pads sides to multiples of, px.

    Raises:
        BpuError: It is no positive integer.
    """
    divisor = data_preprocessor(cfg).get('pad_size_divisor')
    divisor = 1 if divisor is None else divisor
    if not isinstance(divisor, Integral) or isinstance(divisor, bool) or divisor < 1:
        raise BpuError(f'field {PLACE}.pad_size_divisor: expected a positive integer, found '
                       f'{divisor!r}')
    return int(divisor)


def is_finite(value: Any) -> bool:
    """Whether it is a number of float32 and neither NaN nor infinite."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < 2**127 \
        and math.isfinite(value)
