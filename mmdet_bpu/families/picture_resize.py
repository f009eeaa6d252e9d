"""What happens to a picture's size on its way to the network, read from a config's test pipeline.

Two ways: *stretch* gives it the input's height and width; *letterbox* keeps its ratio and pads the
rest. The deployed graph has one input shape and no padding mask, so a detector that needs a mask
(those of the DETR family) gets stretched pictures unless the config asks otherwise.
"""
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.camera_format import YUV, CameraFormat
from mmdet_bpu.families.config_reading import class_of, data_preprocessor, test_pipeline
from mmdet_bpu.families.normalisation import is_finite, normalisation, per_channel
from mmdet_bpu.families.picture_format import agreed_camera, input_channels, swaps_colors
from mmdet_bpu.families.resize_reading import PIPELINE, ResizeReading, read_resize
from mmdet_bpu.runtime.color_conversion import luma_of_gray, yuv_of_rgb

STRETCH, LETTERBOX = 'stretch', 'letterbox'
PADDING_RULE = 'scale = min(width / w, height / h); side = int(side * scale + 0.5)'
EVEN_RULE = 'scale = min(width / w, height / h); side = int(side * scale / 2 + 0.5) * 2'


@dataclass(frozen=True)
class PictureResize:
    """How a picture becomes the input.

    Attributes:
        height (int): Of the input, px.
        width (int): Of the input, px.
        keep_ratio (bool): Letterbox, not stretch.
        interpolation (str): As cv2 and mmcv name it.
        pad_value (tuple[float]): Letterbox: value of the padding per channel, in the order of the
            network's input, on the scale of the picture (0 to 255), before normalisation.
        corner (str): Letterbox: where the picture lies, ``'top_left'`` or ``'center'``.
        clip (str): What boxes are clipped to: the ``'picture'``, or the whole ``'input'``.
        camera (CameraFormat, optional): Whose planes are resized; ``pad_value`` is then Y, U, V.
        colors (str): What they become in a data pipeline, see
            :class:`mmdet_bpu.datasets.CameraResize`.
    """
    height: int
    width: int
    keep_ratio: bool
    interpolation: str = 'bilinear'
    pad_value: Tuple[float, ...] = ()
    corner: str = 'top_left'
    clip: str = 'picture'
    camera: Optional[CameraFormat] = None
    colors: str = ''

    @property
    def shape(self) -> Tuple[int, int]:
        """tuple[int, int]: (height, width) of the input, px."""
        return self.height, self.width

    def as_contract(self) -> Dict[str, Any]:
        """The form that an artefact states and :mod:`mmdet_bpu.runtime.input_stage` reads."""
        stated = dict(asdict(self), by='host')
        del stated['camera'], stated['colors']
        if self.camera is not None and self.camera.multiple > 1:
            stated['multiple'] = self.camera.multiple
        if not self.keep_ratio:
            return {key: value for key, value in stated.items()
                    if key not in ('pad_value', 'corner', 'clip')}
        return dict(stated, pad_value=list(self.pad_value),
                    size_rule=EVEN_RULE if 'multiple' in stated else PADDING_RULE)


def picture_resize(cfg: Config, input_shape: Optional[Tuple[int, int]] = None,
                   resize: Optional[str] = None) -> PictureResize:
    """Resize of the deployed input.

    Args:
        cfg (Config): A config with a model and, for what is not given, a test pipeline.
        input_shape (tuple[int, int], optional): ``bpu.input_shape``, (height, width) px. Defaults
            to the size that the test pipeline gives pictures.
        resize (str, optional): ``bpu.resize``. Defaults to what the test pipeline does; stretch for
            a detector that would need a padding mask.

    Raises:
        BpuError: No shape is given and the test pipeline has none; the message says why.
    """
    reading = read_resize(test_pipeline(cfg))
    if input_shape is None:
        if reading.shape is None:
            raise BpuError('field bpu.input_shape: expected (height, width) in px, found none, and '
                           f'the config\'s test pipeline has no one size: {reading.reason}')
        input_shape = reading.shape
    needs_mask = needs_padding_mask(cfg)
    if resize is None:
        resize = LETTERBOX if reading.keep_ratio and not needs_mask else STRETCH
    height, width = map(int, input_shape)
    camera = agreed_camera(cfg)
    behind = {} if camera is None else dict(camera=camera, colors=_colors(camera))
    if camera is not None and reading.interpolation != 'bilinear':
        raise BpuError(f"field {PIPELINE}: expected the interpolation 'bilinear' for input_format "
                       f'{camera.format!r}, whose planes the host resizes so, found '
                       f'{reading.interpolation!r}')
    if resize == STRETCH:
        return PictureResize(height, width, False, reading.interpolation, **behind)
    # Boxes are clipped before a centred picture's place is taken off them.
    whole = needs_mask or reading.corner != 'top_left'
    return PictureResize(height, width, True, reading.interpolation, _pad_value(cfg, reading),
                         reading.corner, 'input' if whole else 'picture', **behind)


def default_shape(cfg: Config) -> Optional[Tuple[int, int]]:
    """(height, width) px that the test pipeline gives pictures; None if it has no one size."""
    return read_resize(test_pipeline(cfg)).shape


def needs_padding_mask(cfg: Config) -> bool:
    """Whether the config's detector masks the padding of its pictures."""
    detector = class_of(cfg.model, MODELS)
    return isinstance(detector, type) and issubclass(detector, DetectionTransformer)


def _colors(camera: CameraFormat) -> str:
    """What the data preprocessor of a model takes: blue first, gray, or Y, U, V."""
    return 'yuv' if camera.model == YUV else 'gray' if camera.channels == 1 else 'bgr'


def _pad_value(cfg: Config, reading: ResizeReading) -> Tuple[float, ...]:
    """Padding per channel, in the order of the network's input; of a camera, in its bytes.

    Where no transform pads, the data preprocessor does, after normalisation: with 0, which is the
    mean before it.
    """
    camera = agreed_camera(cfg)
    if camera is not None and reading.camera_pad is not None:
        return tuple(reading.camera_pad)
    padding = _picture_padding(cfg, reading)
    if camera is None or (camera.model == YUV and reading.pad_value is None):
        return padding
    blue_first = camera.channels == 3 and not swaps_colors(data_preprocessor(cfg))
    color = np.clip(np.rint(padding[::-1] if blue_first else padding), 0, 255).astype(np.uint8)
    conversion = luma_of_gray(camera.range) if camera.channels == 1 else \
        yuv_of_rgb(camera.range, camera.matrix)
    return tuple(map(float, conversion.apply(color)))


def _picture_padding(cfg: Config, reading: ResizeReading) -> Tuple[float, ...]:
    """Padding per channel, in the order of the network's input."""
    preprocessor, channels = data_preprocessor(cfg), input_channels(cfg)
    if reading.pad_value is None:
        padding = preprocessor.get('pad_value') or 0
        if not is_finite(padding):
            raise BpuError('field model.data_preprocessor.pad_value: expected a finite number, found '
                           f'{padding!r}')
        return tuple(m + float(padding) * s for m, s in zip(*normalisation(cfg)))
    values = per_channel(reading.pad_value, channels, f'{PIPELINE}: pad_val')
    return tuple(values[::-1] if channels == 3 and swaps_colors(preprocessor) else values)
