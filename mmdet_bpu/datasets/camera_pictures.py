"""Pictures of a data set as a board's camera would give them.

What a network is trained and evaluated on is then what it sees on the board, resize and colour
conversion included; all of it is computed by :mod:`mmdet_bpu.runtime`.
"""
from typing import Any, Dict, Sequence, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_bpu.datasets.letterbox import Letterbox
from mmdet_bpu.runtime.camera import Planes, as_yuv444, decoding, planes_of, side_multiple
from mmdet_bpu.runtime.camera_frame import framed_planes, picture_shape
from mmdet_bpu.runtime.input_stage import picture_channels
from mmdet_bpu.runtime.picture_frame import Placement

BYTES = 'bytes'
"""Colours of a picture that holds the camera's own bytes, for a network that converts them."""
FRAME = 'camera_frame'
"""Key of a frame that stands in the place of a picture."""


@TRANSFORMS.register_module()
class CameraColors(BaseTransform):
    """Give a picture the colours that it has behind a camera, at its own size.

    Required Keys:

    - img: (height, width, 3), blue first, or of one channel

    Modified Keys:

    - img: uint8, in the colours asked for

    Args:
        camera (dict): ``format``, ``range`` and ``matrix``, see
            :data:`mmdet_bpu.runtime.camera.Camera`.
        colors (str): ``bgr``, ``gray``, ``yuv``, or ``bytes``.
    """

    def __init__(self, camera: Dict[str, Any], colors: str) -> None:
        self.camera, self.colors = dict(camera), colors

    def transform(self, results: dict) -> dict:
        """Convert the picture to the camera's format and back."""
        planes = planes_of(_as_bytes(results['img'], self.camera), self.camera)
        results['img'] = in_colors(planes, self.camera, self.colors)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(camera={self.camera}, colors={self.colors!r})'


@TRANSFORMS.register_module()
class CameraResize(Letterbox):
    """Bring a picture to the deployed input as a camera's planes, as the board's host does.

    Keys are those of :class:`mmdet_bpu.datasets.letterbox.Letterbox`, and

    - camera_frame (optional): a :class:`mmdet_bpu.runtime.camera.Nv12Frame` in the place of the
      picture

    Args:
        scale (tuple[int, int]): (width, height) of the input, px.
        camera (dict): ``format``, ``range`` and ``matrix``.
        colors (str): ``bgr``, ``gray``, ``yuv``, or ``bytes``.
        keep_ratio (bool): Letterbox, not stretch. Defaults to False.
        pad_val (Sequence[float]): Bytes of the padding: Y, U, V, or Y alone. Defaults to ().
        corner (str), clip (str), enlarge (bool): See :class:`Letterbox`.
    """

    def __init__(self,
                 scale: Tuple[int, int],
                 camera: Dict[str, Any],
                 colors: str,
                 keep_ratio: bool = False,
                 pad_val: Sequence[float] = (),
                 corner: str = 'top_left',
                 clip: str = 'picture',
                 enlarge: bool = True) -> None:
        super().__init__(scale, pad_val, corner=corner, clip=clip, enlarge=enlarge)
        self.camera, self.colors, self.letterboxes = dict(camera), colors, keep_ratio

    def rule(self) -> Dict[str, Any]:
        """What it does, as ``preprocessing.resize`` of a contract says it."""
        return dict(super().rule(), keep_ratio=self.letterboxes, pad_value=self.pad_val,
                    multiple=side_multiple(self.camera))

    def _place_img(self, results: dict, placed: Placement) -> None:
        source = results.pop(FRAME, None)
        if source is None:
            source = _as_bytes(results['img'], self.camera)
        height, width = picture_shape(source)
        planes = framed_planes(source, dict(camera=self.camera, resize=self.rule()))
        results['img'] = in_colors(planes, self.camera, self.colors)
        results.update(img_shape=(placed.height, placed.width), keep_ratio=self.letterboxes,
                       scale_factor=(placed.width / width, placed.height / height))

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(scale={self.scale}, camera={self.camera}, '
                f'colors={self.colors!r}, keep_ratio={self.letterboxes}, pad_val={self.pad_val}, '
                f'corner={self.corner!r}, clip={self.clip!r}, enlarge={self.enlarge})')


def in_colors(planes: Planes, camera: Dict[str, Any], colors: str) -> np.ndarray:
    """(height, width, channels) uint8 of planes."""
    whole = as_yuv444(planes)
    return whole if colors == BYTES else decoding(camera, colors).apply(whole)


def _as_bytes(image: np.ndarray, camera: Dict[str, Any]) -> np.ndarray:
    """A picture that transforms may have made float32, as the 8 bits that a camera has."""
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return picture_channels(image, 'gray' if camera['format'] == 'gray' else 'bgr')
