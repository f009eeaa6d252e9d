"""What a camera gives, and the pictures that a network sees of it.

A camera's picture is a list of planes, each (h, w, channels) uint8: for ``nv12`` Y in full and U, V
interleaved at half the size; for ``yuv444`` one plane of Y, U, V; for ``gray`` Y alone. What range
their levels have and by which matrix they were made is the contract's ``preprocessing.camera``.

An ordinary picture becomes one by :func:`planes_of`, which is how data sets train and evaluate such
a network, and how ``tools/infer.py`` feeds it files.
"""
from typing import Any, Dict, List, NamedTuple, Tuple, Union

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.color_conversion import (Conversion, gray_of_luma, luma_of_gray, rgb_of_yuv,
                                                unchanged, yuv_of_rgb)
from mmdet_bpu.runtime.plane_resize import resized_plane

FORMATS = ('nv12', 'yuv444', 'gray')
Planes = List[np.ndarray]
Camera = Dict[str, Any]
"""``preprocessing.camera``: ``format``, ``range``, ``matrix``, ``by``."""


class Nv12Frame(NamedTuple):
    """A frame as the camera of a board gives it.

    Attributes:
        y (np.ndarray): (height, width) uint8.
        uv (np.ndarray): (height / 2, width / 2, 2) uint8, U first.
    """
    y: np.ndarray
    uv: np.ndarray

    @property
    def height(self) -> int:
        """int: px."""
        return self.y.shape[0]

    @property
    def width(self) -> int:
        """int: px."""
        return self.y.shape[1]


def side_multiple(camera: Camera) -> int:
    """What sides and corners of a camera's picture in the input are multiples of, px."""
    return 2 if camera['format'] == 'nv12' else 1


def even_shapes(shape: Tuple[int, int]) -> List[Tuple[int, int]]:
    """The next smaller and the next larger shape with even sides, px."""
    down, up = ([max(side + odd * (side % 2), 2) for side in shape] for odd in (-1, 1))
    return list(dict.fromkeys((tuple(down), tuple(up))))


def check_frame_size(width: int, height: int) -> None:
    """Refuse sizes that no NV12 frame has.

    Raises:
        BpuError: A side is not positive or odd; the message names the next that are even.
    """
    if min(width, height) < 1 or width % 2 or height % 2:
        sizes = ' and '.join(f'{w}x{h}' for w, h in even_shapes((width, height)))
        raise BpuError(f'NV12 frame: expected an even width and height, found {width}x{height}; '
                       f'the next that are even: {sizes}')


def nv12_frame(content: bytes, width: int, height: int, words: str = 'NV12 frame') -> Nv12Frame:
    """A frame of the bytes of one: all of Y, then all of U, V, without gaps between rows.

    Args:
        content (bytes): Of the frame.
        width (int): px.
        height (int): px.
        words (str): What messages call it.

    Raises:
        BpuError: An odd size, or another number of bytes than it has.
    """
    check_frame_size(width, height)
    expected = width * height * 3 // 2
    if len(content) != expected:
        more = f' ({len(content) // expected} frames? cut it into files of one each)' \
            if len(content) > expected and len(content) % expected == 0 else ''
        raise BpuError(f'{words}: expected {expected} bytes for {width}x{height} (width x height x '
                       f'3 / 2), found {len(content)}{more}; give the size that it was recorded in')
    data = np.frombuffer(content, np.uint8)
    luma = width * height
    return Nv12Frame(data[:luma].reshape(height, width),
                     data[luma:].reshape(height // 2, width // 2, 2))


def decoding(camera: Camera, color_order: str) -> Conversion:
    """The conversion of a camera's bytes, one plane of all channels, to what the network sees.

    Args:
        camera (dict): See :data:`Camera`.
        color_order (str): ``rgb``, ``bgr``, ``gray``, or ``yuv``: the bytes as they are.
    """
    if color_order == 'yuv':
        return unchanged(3)
    if color_order == 'gray':
        return gray_of_luma(camera['range'])
    conversion = rgb_of_yuv(camera['range'], camera['matrix'])
    if color_order == 'rgb':
        return conversion
    return conversion._replace(matrix=conversion.matrix[::-1], offset=conversion.offset[::-1])


def planes_of(picture: Union[np.ndarray, Nv12Frame], camera: Camera) -> Planes:
    """An ordinary picture as the camera would give it, or a frame in the camera's format.

    Args:
        picture (np.ndarray | Nv12Frame): (height, width, 3) uint8, blue first, or for ``gray``
            (height, width, 1); or a frame.
        camera (dict): See :data:`Camera`.

    Returns:
        list[np.ndarray]: Planes. Of an odd side the last U, V stand for one row or column.
    """
    kind = camera['format']
    if isinstance(picture, Nv12Frame):
        planes = [picture.y[..., None], picture.uv]
        if kind == 'gray':
            return planes[:1]
        return planes if kind == 'nv12' else [as_yuv444(planes)]
    if kind == 'gray':
        return [luma_of_gray(camera['range']).apply(picture)]
    yuv = yuv_of_rgb(camera['range'], camera['matrix']).apply(picture[..., ::-1])
    return [yuv] if kind == 'yuv444' else [yuv[..., :1], _halved(yuv[..., 1:])]


def as_yuv444(planes: Planes) -> np.ndarray:
    """(height, width, channels): every U, V stands for 2 x 2 px, as the board's unit repeats it."""
    if len(planes) == 1:
        return planes[0]
    luma, chroma = planes
    height, width = luma.shape[:2]
    chroma = chroma.repeat(2, 0)[:height].repeat(2, 1)[:, :width]
    return np.concatenate([luma, chroma], -1)


def as_picture(planes: Planes, camera: Camera) -> np.ndarray:
    """An ordinary picture of planes: (height, width, 3) uint8, blue first; gray has 3 alike."""
    if camera['format'] == 'gray':
        return decoding(camera, 'gray').apply(planes[0]).repeat(3, -1)
    return decoding(camera, 'bgr').apply(as_yuv444(planes))


def plane_fills(camera: Camera, values: List[float]) -> List[np.ndarray]:
    """Bytes of a padded pixel, plane by plane.

    Args:
        camera (dict): See :data:`Camera`.
        values (list[float]): ``preprocessing.resize.pad_value``: Y, U, V, or Y alone.
    """
    whole = np.clip(np.rint(np.asarray(values, np.float64)), 0, 255).astype(np.uint8)
    return [whole[:1], whole[1:]] if camera['format'] == 'nv12' else [whole]


def sized_planes(planes: Planes, camera: Camera, height: int, width: int) -> Planes:
    """Planes of a picture at another size, even for ``nv12``; each is resized by itself."""
    return [resized_plane(plane, height // part, width // part)
            for plane, part in zip(planes, (1, side_multiple(camera)))]


def _halved(chroma: np.ndarray) -> np.ndarray:
    """The mean of every 2 x 2 px, halves up; an odd side's last row or column counts twice."""
    height, width = chroma.shape[:2]
    padded = np.pad(chroma, ((0, height % 2), (0, width % 2), (0, 0)), 'edge').astype(np.uint16)
    total = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return (total + 2 >> 2).astype(np.uint8)
