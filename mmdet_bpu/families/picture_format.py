"""How many channels a detector's pictures have, and in which order it gets them.

mmdet reads pictures blue first. Its data preprocessor swaps the first and the last of three
channels, or none.
"""
from typing import Any, Dict, Optional, Union

from mmengine.config import Config

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.camera_format import YUV, CameraFormat, camera_format
from mmdet_bpu.families.config_reading import data_preprocessor, test_pipeline, type_name

# The last: another number of channels, in the order of the file (as cv2.IMREAD_UNCHANGED).
INPUT_FORMATS = ('rgb', 'bgr', 'gray', 'unchanged')
COLORS = 3
GRAY_LOADING = ('grayscale', 'grayscale_ignore_orientation')


def input_channels(cfg: Config) -> int:
    """Channels of the deployed input.

    As many as the normalisation has means; where that is one mean for all channels or none, what the
    backbone is built for; without that, what the test pipeline loads.
    """
    mean = (data_preprocessor(cfg)).get('mean') or []
    if len(mean) > 1:
        return len(mean)
    stated = (cfg.model.get('backbone') or {}).get('in_channels')
    if isinstance(stated, int):
        return stated
    loads_gray = any(transform.get('color_type') in GRAY_LOADING
                     for transform in test_pipeline(cfg) or ()
                     if type_name(transform).startswith('LoadImage'))
    return 1 if loads_gray else COLORS


def swaps_colors(preprocessor: dict) -> bool:
    """Whether a data preprocessor turns blue first into red first."""
    return bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr'))


def picture_format(cfg: Config) -> str:
    """The one of :data:`INPUT_FORMATS` that the data preprocessor gives the model.

    Raises:
        BpuError: It swaps the colours of pictures that have not three channels.
    """
    preprocessor, channels = data_preprocessor(cfg), input_channels(cfg)
    if channels == COLORS:
        return 'rgb' if swaps_colors(preprocessor) else 'bgr'
    if swaps_colors(preprocessor):
        raise BpuError('field model.data_preprocessor.bgr_to_rgb: expected False for a model of '
                       f'{channels} input channel{"s" if channels > 1 else ""}, found True')
    return 'gray' if channels == 1 else 'unchanged'


def agreed_camera(cfg: Config) -> Optional[CameraFormat]:
    """The camera of a config's deployed model; None where the host normalises pictures.

    Raises:
        BpuError: The model has not the channels of its pictures.
    """
    camera = camera_format((cfg.get('bpu') or {}).get('input_format'))
    if camera is not None and input_channels(cfg) != camera.channels:
        raise BpuError(f'field bpu.input_format: expected a model of {camera.channels} input '
                       f'channel{"s" if camera.channels > 1 else ""} for {camera.format!r}, found '
                       f'one of {input_channels(cfg)}')
    return camera


def color_order(cfg: Config) -> str:
    """Order of the network's channels, those behind a camera's conversion too."""
    camera = agreed_camera(cfg)
    if camera is None:
        return agreed_format(cfg, (cfg.get('bpu') or {}).get('input_format'))
    return YUV if camera.model == YUV else picture_format(cfg)


def agreed_format(cfg: Config, stated: Any) -> Union[str, Dict[str, str]]:
    """Input format of the deployed model: what the config says, checked, or what it gives.

    Args:
        cfg (Config): A config with a model.
        stated (str | Mapping, optional): ``bpu.input_format``.

    Returns:
        str | dict: One of :data:`INPUT_FORMATS`, or the whole table of a camera.

    Raises:
        BpuError: The model is trained on another order.
    """
    camera = camera_format(stated)
    if camera is not None:
        return camera.as_setting()
    gives = picture_format(cfg)
    # One channel has no order.
    if stated in (None, gives) or (gives == 'gray' and stated == 'bgr'):
        return gives
    raise BpuError(f'field bpu.input_format: expected {gives!r}, the order that '
                   'model.data_preprocessor gives the model '
                   f'(bgr_to_rgb={data_preprocessor(cfg).get("bgr_to_rgb", False)}, '
                   f'{input_channels(cfg)} channels), found {stated!r}')
