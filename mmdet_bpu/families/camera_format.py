"""``bpu.input_format`` of a network that takes what a camera gives.

A name, ``nv12`` or ``yuv444``, stands for the table with the defaults; ``gray`` as a name is a
picture that the host normalises, and Y of a camera as a table.
"""
from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import FORMATS, even_shapes, side_multiple
from mmdet_bpu.runtime.color_conversion import MATRICES, RANGES

RGB, YUV = 'rgb', 'yuv'
MODELS = (RGB, YUV)
NAMES = ('nv12', 'yuv444')
"""Formats that a name alone asks for."""
RECIPE = 128.0
"""Mean and standard deviation of a network on YUV: the vendor's recipe, bytes centred."""


@dataclass(frozen=True)
class CameraFormat:
    """What a camera gives, and what the model is trained on.

    Attributes:
        format (str): ``nv12``, ``yuv444`` or ``gray``.
        range (str): Of its levels, ``full`` or ``video``.
        matrix (str): ``bt601`` or ``bt709``.
        model (str): ``rgb``: the network converts, and the model keeps the colours that its data
            preprocessor gives it; ``yuv``: the model is trained on Y, U, V.
    """
    format: str
    range: str = 'full'
    matrix: str = 'bt601'
    model: str = RGB

    @property
    def channels(self) -> int:
        """int: Of the model's input."""
        return 1 if self.format == 'gray' else 3

    @property
    def multiple(self) -> int:
        """int: What the sides of the input are multiples of, px."""
        return side_multiple(self.camera)

    @property
    def camera(self) -> Dict[str, str]:
        """What :mod:`mmdet_bpu.runtime.camera` reads."""
        return dict(format=self.format, range=self.range, matrix=self.matrix)

    def as_setting(self) -> Dict[str, str]:
        """The table that :func:`camera_format` reads back."""
        return asdict(self)


WITHIN = dict(format=FORMATS, range=RANGES, matrix=MATRICES, model=MODELS)
"""Keys of the table, and their values."""


def camera_format(stated: Any) -> Optional[CameraFormat]:
    """The camera of a ``bpu.input_format``; None for pictures that the host normalises.

    Args:
        stated (str | Mapping, optional): The setting, checked by :func:`check_camera_format`.
    """
    if isinstance(stated, str) and stated in NAMES:
        return CameraFormat(stated)
    return CameraFormat(**stated) if isinstance(stated, Mapping) else None


def check_camera_format(stated: Any, field: str) -> None:
    """Refuse a table that says something else.

    Args:
        stated (Any): A value of the field; what is no table is let through.
        field (str): Its name.

    Raises:
        BpuError: A key or value is not known, ``format`` is absent, or they contradict.
    """
    if not isinstance(stated, Mapping):
        return
    for name, value in stated.items():
        if name not in WITHIN:
            raise BpuError(f'unknown field {field}.{name}; known: {", ".join(WITHIN)}')
        if value not in WITHIN[name]:
            raise BpuError(f'field {field}.{name}: expected one of '
                           f'{", ".join(map(repr, WITHIN[name]))}, found {value!r}')
    if 'format' not in stated:
        raise BpuError(f'field {field}.format: expected one of {", ".join(map(repr, FORMATS))}, '
                       'found none')
    if stated['format'] == 'gray' and stated.get('model', RGB) != RGB:
        raise BpuError(f"field {field}.model: expected 'rgb' for 'gray', whose model has one "
                       f'channel, found {stated["model"]!r}')


def require_camera_shape(camera: Optional[CameraFormat], shape: tuple) -> None:
    """Refuse an input that a camera's planes have not.

    Raises:
        BpuError: A side is odd where U and V stand for 2 x 2 px; the message names the next shapes
            that fit.
    """
    if camera is not None and any(side % camera.multiple for side in shape):
        raise BpuError(f'field bpu.input_shape: expected an even height and width for input_format '
                       f'{camera.format!r}, whose U and V stand for 2 x 2 px, found '
                       f'{tuple(shape)}; the next that fit: {" and ".join(map(str, even_shapes(shape)))}')
