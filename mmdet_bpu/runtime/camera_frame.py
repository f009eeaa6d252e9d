"""A camera's planes in the network's input: resized, letterboxed, and as the network sees them."""
from typing import Any, Dict, List, Tuple, Union

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import (Nv12Frame, Planes, as_yuv444, decoding, plane_fills,
                                      planes_of, sized_planes)
from mmdet_bpu.runtime.picture_frame import place

CENTRED = 0x80
"""The bit that tells a byte from the same byte less 128."""


def plane_types(camera_format: str, height: int, width: int,
                name: str = 'image') -> List[Tuple[str, str, Tuple[int, ...]]]:
    """Name, element name and shape of the inputs of a network that takes a camera's planes.

    Args:
        camera_format (str): ``nv12``, ``gray`` or ``yuv444``.
        height (int): Of the input, px.
        width (int): Of the input, px.
        name (str): Of the image; the vendor's tools put ``_y`` and ``_uv`` behind it.
    """
    luma = (f'{name}_y', 'ui8', (1, height, width, 1))
    if camera_format == 'nv12':
        return [luma, (f'{name}_uv', 'ui8', (1, height // 2, width // 2, 2))]
    return [luma] if camera_format == 'gray' else [(name, 'si8', (1, height, width, 3))]


def picture_shape(picture: Union[np.ndarray, Nv12Frame]) -> tuple:
    """(height, width) of a picture or a frame, px."""
    return picture.y.shape if isinstance(picture, Nv12Frame) else picture.shape[:2]


def framed_planes(picture: Union[np.ndarray, Nv12Frame], stage: Dict[str, Any]) -> Planes:
    """Planes of a picture or a frame at the input's size, as the camera's unit hands them on.

    Args:
        picture (np.ndarray | Nv12Frame): As for :func:`mmdet_bpu.runtime.camera.planes_of`.
        stage (dict): ``preprocessing`` of the contract.

    Raises:
        BpuError: The contract places pictures where planes at half the size cannot follow.
    """
    camera, resize = stage['camera'], stage['resize']
    height, width = picture_shape(picture)
    placed = place(resize, width, height)
    planes = sized_planes(planes_of(picture, camera), camera, placed.height, placed.width)
    if (placed.height, placed.width) == (resize['height'], resize['width']):
        return planes
    framed = []
    for plane, fill in zip(planes, plane_fills(camera, resize['pad_value'])):
        part = placed.height // plane.shape[0]
        if any(side % part for side in placed):
            raise BpuError(f'contract, preprocessing.resize.multiple: expected {part}, since '
                           f'planes of {camera["format"]} lie on every {part} px, found a picture at '
                           f'{tuple(placed)}')
        whole = np.empty((resize['height'] // part, resize['width'] // part, plane.shape[2]),
                         np.uint8)
        whole[:] = fill
        top, left = placed.top // part, placed.left // part
        whole[top:top + plane.shape[0], left:left + plane.shape[1]] = plane
        framed.append(whole)
    return framed


def seen_picture(planes: Planes, stage: Dict[str, Any]) -> np.ndarray:
    """What the network sees of planes: (H, W, channels) uint8 in the order of its channels."""
    return decoding(stage['camera'], stage['color_order']).apply(as_yuv444(planes))


def plane_inputs(planes: Planes, contract: Dict[str, Any]) -> Dict[str, np.ndarray]:
    """Planes as the inputs of a network that takes them: bytes, ``yuv444`` less 128 as int8.

    Args:
        planes (list[np.ndarray]): At the input's size.
        contract (dict): Content of model.deploy.json.

    Returns:
        dict[str, np.ndarray]: Each (1, h, w, channels).
    """
    names = [entry['name'] for entry in contract['inputs']]
    if contract['preprocessing']['camera']['format'] == 'yuv444':
        planes = [(plane ^ CENTRED).view(np.int8) for plane in planes]
    return {name: plane[None] for name, plane in zip(names, planes)}
