"""What happens to a picture's size on its way to the network, read from a config's test pipeline.

Two ways: *stretch* gives it the input's height and width; *letterbox* keeps its ratio and pads the
rest. The deployed graph has one input shape and no padding mask, so a detector that needs a mask
(those of the DETR family) gets stretched pictures unless the config asks otherwise.
"""
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import (class_of, data_preprocessor, test_pipeline,
                                               type_name)
from mmdet_bpu.families.input_shape import INPUT_SHAPE, is_input_shape
from mmdet_bpu.families.normalisation import is_finite, normalisation, per_channel
from mmdet_bpu.families.picture_format import input_channels, swaps_colors
from mmdet_bpu.runtime.input_stage import INTERPOLATIONS

STRETCH, LETTERBOX = 'stretch', 'letterbox'
# Our own transform, in a config that was rewritten already.
OWN_LETTERBOX = 'Letterbox'
SEVERAL_SCALES = ('TestTimeAug', 'MultiScaleFlipAug', 'RandomResize', 'RandomChoiceResize')
PIPELINE = 'test_dataloader.dataset.pipeline'
PADDING_RULE = 'scale = min(width / w, height / h); side = int(side * scale + 0.5)'


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
    """
    height: int
    width: int
    keep_ratio: bool
    interpolation: str = 'bilinear'
    pad_value: Tuple[float, ...] = ()
    corner: str = 'top_left'
    clip: str = 'picture'

    @property
    def shape(self) -> Tuple[int, int]:
        """tuple[int, int]: (height, width) of the input, px."""
        return self.height, self.width

    def as_contract(self) -> Dict[str, Any]:
        """The form that an artefact states and :mod:`mmdet_bpu.runtime.input_stage` reads."""
        stated = dict(asdict(self), by='host')
        if not self.keep_ratio:
            return {key: value for key, value in stated.items()
                    if key not in ('pad_value', 'corner', 'clip')}
        return dict(stated, pad_value=list(self.pad_value), size_rule=PADDING_RULE)


@dataclass
class _Reading:
    """What the transforms read so far do to a picture's size."""
    shape: Optional[Tuple[int, int]] = None
    reason: str = 'it does not resize pictures'
    keep_ratio: bool = False
    interpolation: str = 'bilinear'
    pad_value: Optional[Sequence[float]] = None  # blue first, as pictures are read
    corner: str = 'top_left'


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
    reading = _read(test_pipeline(cfg))
    if input_shape is None:
        if reading.shape is None:
            raise BpuError('field bpu.input_shape: expected (height, width) in px, found none, and '
                           f'the config\'s test pipeline has no one size: {reading.reason}')
        input_shape = reading.shape
    needs_mask = needs_padding_mask(cfg)
    if resize is None:
        resize = LETTERBOX if reading.keep_ratio and not needs_mask else STRETCH
    height, width = map(int, input_shape)
    if resize == STRETCH:
        return PictureResize(height, width, False, reading.interpolation)
    # Boxes are clipped before a centred picture's place is taken off them.
    whole = needs_mask or reading.corner != 'top_left'
    return PictureResize(height, width, True, reading.interpolation, _pad_value(cfg, reading),
                         reading.corner, 'input' if whole else 'picture')


def default_shape(cfg: Config) -> Optional[Tuple[int, int]]:
    """(height, width) px that the test pipeline gives pictures; None if it has no one size."""
    return _read(test_pipeline(cfg)).shape


def needs_padding_mask(cfg: Config) -> bool:
    """Whether the config's detector masks the padding of its pictures."""
    detector = class_of(cfg.model, MODELS)
    return isinstance(detector, type) and issubclass(detector, DetectionTransformer)


def _pad_value(cfg: Config, reading: _Reading) -> Tuple[float, ...]:
    """Padding per channel, in the order of the network's input.

    Where no transform pads, the data preprocessor does, after normalisation: with 0, which is the
    mean before it.
    """
    preprocessor, channels = data_preprocessor(cfg), input_channels(cfg)
    if reading.pad_value is None:
        padding = preprocessor.get('pad_value') or 0
        if not is_finite(padding):
            raise BpuError('field model.data_preprocessor.pad_value: expected a finite number, found '
                           f'{padding!r}')
        return tuple(m + float(padding) * s for m, s in zip(*normalisation(cfg)))
    values = per_channel(reading.pad_value, channels, f'{PIPELINE}: pad_val')
    return tuple(values[::-1] if channels == 3 and swaps_colors(preprocessor) else values)


def _read(pipeline: Optional[List[dict]]) -> _Reading:
    reading = _Reading()
    if pipeline is None:
        reading.reason = 'there is none'
    for transform in pipeline or ():
        name = type_name(transform)
        if name in SEVERAL_SCALES:
            reading.shape, reading.reason = None, f'{name} gives them several sizes'
            _read_interpolation(reading, transform)
        elif name in _READERS:
            try:
                _READERS[name](reading, transform)
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                raise BpuError(
                    f'field {PIPELINE}: {name} has arguments that cannot be read '
                    f'({type(error).__name__}: {error}); correct {dict(transform)}') from error
    if reading.shape is not None and not is_input_shape(reading.shape):
        raise BpuError(f'field {PIPELINE}: expected sizes of {INPUT_SHAPE}, found {reading.shape}')
    # By cv2 whatever backend the config's own pipeline has: every deployed stage resizes as a host.
    if reading.interpolation not in list(INTERPOLATIONS):
        raise BpuError(f'field {PIPELINE}: expected an interpolation of {", ".join(INTERPOLATIONS)} '
                       f'of cv2, as a board\'s host has them, found {reading.interpolation!r}')
    return reading


def _read_interpolation(reading: _Reading, transform: dict) -> None:
    """As the transform states it, or passes it on to the Resize that it makes."""
    reading.interpolation = transform.get('interpolation', 'bilinear')


def _read_resize(reading: _Reading, transform: dict) -> None:
    scale = transform.get('scale')
    if scale is None:
        reading.shape, reading.reason = None, 'Resize scales them by a factor'
    elif isinstance(scale, int):
        reading.shape = (scale, scale)
    else:
        width, height = scale
        reading.shape = (int(height), int(width))
    reading.keep_ratio = bool(transform.get('keep_ratio', False))
    _read_interpolation(reading, transform)


def _read_resize_by_edges(reading: _Reading, transform: dict) -> None:
    """A scale of this transform is a short and a long edge; pictures of a camera are wide."""
    _read_resize(reading, transform)
    if reading.shape is not None and reading.keep_ratio:
        reading.shape = (min(reading.shape), max(reading.shape))


def _read_shortest_edge(reading: _Reading, transform: dict) -> None:
    _read_interpolation(reading, transform)
    scale, longest = transform.get('scale'), transform.get('max_size')
    short = min(scale) if isinstance(scale, (tuple, list)) else scale
    reading.keep_ratio = True
    if longest is None:
        reading.shape, reading.reason = None, 'ResizeShortestEdge leaves their longer edge open'
    else:
        reading.shape = (int(short), int(longest))


def _read_fixed_shape(reading: _Reading, transform: dict) -> None:
    reading.shape = (int(transform['height']), int(transform['width']))
    reading.keep_ratio = bool(transform.get('keep_ratio', False))
    _read_interpolation(reading, transform)
    reading.pad_value = _image_pad(transform)


def _read_pad(reading: _Reading, transform: dict) -> None:
    reading.pad_value = _image_pad(transform)
    size, divisor = transform.get('size'), transform.get('size_divisor')
    if size is not None:
        width, height = (size, size) if isinstance(size, int) else size
        reading.shape = (int(height), int(width))
    if reading.shape is None:
        return
    if transform.get('pad_to_square'):
        reading.shape = (max(reading.shape), ) * 2
    if divisor:
        reading.shape = tuple(-(-side // divisor) * divisor for side in reading.shape)


def _read_center_pad(reading: _Reading, transform: dict) -> None:
    mean = list(transform.get('mean') or [0.0])
    reading.shape = None
    reading.reason = 'RandomCenterCropPad keeps the size of each'
    reading.keep_ratio, reading.corner = True, 'center'
    reading.pad_value = mean[::-1] if transform.get('to_rgb') else mean


def _read_own(reading: _Reading, transform: dict) -> None:
    _read_resize(reading, dict(transform, keep_ratio=True))
    reading.pad_value, reading.corner = transform['pad_val'], transform['corner']


def _image_pad(transform: dict) -> Sequence[float]:
    value: Any = transform.get('pad_val', 0)
    if isinstance(value, dict):
        value = value.get('img', 0)
    return value if isinstance(value, (tuple, list)) else [value]


_READERS = {
    'Resize': _read_resize,
    'FixScaleResize': _read_resize_by_edges,
    'ResizeShortestEdge': _read_shortest_edge,
    'FixShapeResize': _read_fixed_shape,
    'Pad': _read_pad,
    'RandomCenterCropPad': _read_center_pad,
    OWN_LETTERBOX: _read_own,
}
