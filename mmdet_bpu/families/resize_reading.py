"""What the transforms of a test pipeline do to a picture's size."""
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import type_name
from mmdet_bpu.families.input_shape import INPUT_SHAPE, is_input_shape
from mmdet_bpu.runtime.input_stage import INTERPOLATIONS

# Our own transforms, in a config that was rewritten already.
OWN_LETTERBOX, OWN_CAMERA, OWN_COLORS = 'Letterbox', 'CameraResize', 'CameraColors'
SEVERAL_SCALES = ('TestTimeAug', 'MultiScaleFlipAug', 'RandomResize', 'RandomChoiceResize')
PIPELINE = 'test_dataloader.dataset.pipeline'


@dataclass
class ResizeReading:
    """What the transforms read so far do to a picture's size.

    Attributes:
        shape (tuple[int, int], optional): (height, width), px.
        reason (str): Why there is no shape.
        keep_ratio (bool): Whether the ratio of its sides stays.
        interpolation (str): As cv2 and mmcv name it.
        pad_value (Sequence[float], optional): Blue first, as pictures are read.
        camera_pad (Sequence[float], optional): The same as bytes of a camera.
        corner (str): Where it lies.
    """
    shape: Optional[Tuple[int, int]] = None
    reason: str = 'it does not resize pictures'
    keep_ratio: bool = False
    interpolation: str = 'bilinear'
    pad_value: Optional[Sequence[float]] = None
    camera_pad: Optional[Sequence[float]] = None
    corner: str = 'top_left'


def read_resize(pipeline: Optional[List[dict]]) -> ResizeReading:
    """What a test pipeline does to a picture's size.

    Raises:
        BpuError: A transform has arguments that cannot be read, a size that no input has, or an
            interpolation that a board's host has not.
    """
    reading = ResizeReading()
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
        raise BpuError(f'field {PIPELINE}: expected an interpolation of '
                       f'{", ".join(INTERPOLATIONS)} of cv2, as a board\'s host has them, found {reading.interpolation!r}')
    return reading


def _read_interpolation(reading: ResizeReading, transform: dict) -> None:
    """As the transform states it, or passes it on to the Resize that it makes."""
    reading.interpolation = transform.get('interpolation', 'bilinear')


def _read_resize(reading: ResizeReading, transform: dict) -> None:
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


def _read_resize_by_edges(reading: ResizeReading, transform: dict) -> None:
    """A scale of this transform is a short and a long edge; pictures of a camera are wide."""
    _read_resize(reading, transform)
    if reading.shape is not None and reading.keep_ratio:
        reading.shape = (min(reading.shape), max(reading.shape))


def _read_shortest_edge(reading: ResizeReading, transform: dict) -> None:
    _read_interpolation(reading, transform)
    scale, longest = transform.get('scale'), transform.get('max_size')
    short = min(scale) if isinstance(scale, (tuple, list)) else scale
    reading.keep_ratio = True
    if longest is None:
        reading.shape, reading.reason = None, 'ResizeShortestEdge leaves their longer edge open'
    else:
        reading.shape = (int(short), int(longest))


def _read_fixed_shape(reading: ResizeReading, transform: dict) -> None:
    reading.shape = (int(transform['height']), int(transform['width']))
    reading.keep_ratio = bool(transform.get('keep_ratio', False))
    _read_interpolation(reading, transform)
    reading.pad_value = _image_pad(transform)


def _read_pad(reading: ResizeReading, transform: dict) -> None:
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


def _read_center_pad(reading: ResizeReading, transform: dict) -> None:
    mean = list(transform.get('mean') or [0.0])
    reading.shape = None
    reading.reason = 'RandomCenterCropPad keeps the size of each'
    reading.keep_ratio, reading.corner = True, 'center'
    reading.pad_value = mean[::-1] if transform.get('to_rgb') else mean


def _read_own(reading: ResizeReading, transform: dict) -> None:
    _read_resize(reading, dict(transform, keep_ratio=True))
    reading.pad_value, reading.corner = transform['pad_val'], transform['corner']


def _read_camera(reading: ResizeReading, transform: dict) -> None:
    _read_resize(reading, dict(transform, interpolation='bilinear'))
    if reading.keep_ratio:
        reading.camera_pad, reading.corner = transform['pad_val'], transform['corner']


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
    OWN_CAMERA: _read_camera,
}
