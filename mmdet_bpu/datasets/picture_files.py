"""Files of pictures: found in folders, and read within a stated budget.

A folder of pictures holds whatever people left there. What is no picture that can be read is named
and never waited for.
"""
import errno
import io
import os
import stat
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from PIL import Image

from mmdet_bpu.datasets.decoding import DecodeError, decode_image
from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import Nv12Frame, check_frame_size, nv12_frame

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
FRAME_SUFFIXES = ('.nv12', '.raw', '.yuv')
"""Of files in folders that are raw NV12 frames, where these are asked for."""
MOST_BYTES = 1 << 28
MOST_PIXELS = 1 << 27  # 384 MiB in three channels; what is drawn takes a few times as much
LONGEST_SIDE = 1 << 16
ORIENTATION = 0x0112  # an EXIF tag; 5 to 8 exchange width and height
SIDEWAYS = (5, 6, 7, 8)
NOT_FILES = {stat.S_ISFIFO: 'a pipe', stat.S_ISDIR: 'a folder', stat.S_ISSOCK: 'a socket',
             stat.S_ISCHR: 'a device', stat.S_ISBLK: 'a device'}


class PictureFile(NamedTuple):
    """A file, and where a picture of that name belongs.

    Attributes:
        path (Path): The file.
        name (Path): Its place under the folder that was given, or its own name.
    """
    path: Path
    name: Path


def find_pictures(images: Union[str, Path, Sequence], frames: bool = False) -> List[PictureFile]:
    """Files of pictures, folders searched at any depth, in order of their names.

    Whether they can be read is not looked at; links to folders inside of folders are not followed.

    Args:
        images (str | Path | Sequence): Files and folders.
        frames (bool): Search for raw frames too. Defaults to False.

    Raises:
        BpuError: A path does not exist, or there is no picture.
    """
    suffixes = SUFFIXES + FRAME_SUFFIXES if frames else SUFFIXES
    images = [images] if isinstance(images, (str, Path)) else images
    found = []
    for path in map(Path, images):
        try:
            if path.is_dir():
                found += [PictureFile(file, file.relative_to(path)) for file in sorted(path.rglob('*'))
                          if file.suffix.lower() in suffixes and not _is_folder(file)]
            else:
                os.lstat(path)
                found.append(PictureFile(path, Path(path.name)))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOENT:
                raise BpuError(f'{shown(path)} cannot be read ({error.strerror})') from error
            raise BpuError(f'{shown(path)} not found; expected a picture or a folder of pictures'
                           ) from error
    if not found:
        raise BpuError(f'no pictures in {", ".join(map(shown, images))}; expected files ending with '
                       f'{", ".join(suffixes)}')
    return found


def check_frames(width: int, height: int) -> None:
    """Refuse a size that no NV12 frame has, or that is beyond the budget of pictures.

    Raises:
        BpuError: It is.
    """
    check_frame_size(width, height)
    if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
        raise BpuError(f'NV12 frame: expected at most {MOST_PIXELS} px and sides of at most '
                       f'{LONGEST_SIDE} px, found {width}x{height}')


def read_source(path: Path, frame_size: Optional[Tuple[int, int]] = None
                ) -> Union[np.ndarray, Nv12Frame]:
    """A picture, or where the file's name does not end as one of a picture, a raw NV12 frame.

    Args:
        path (Path): File.
        frame_size (tuple[int, int], optional): (width, height) of raw frames, px. Defaults to none:
            every file is a picture.

    Raises:
        BpuError: See :func:`read_picture`; or it is not as long as a frame of that size.
    """
    if frame_size is None or path.suffix.lower() in SUFFIXES:
        return read_picture(path)
    return nv12_frame(_content(path), *frame_size, f'NV12 frame {shown(path)}')


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) uint8, blue first, turned as its EXIF orientation says.

    Raises:
        BpuError: It is no file, too large, or cannot be decoded.
    """
    content = _content(path)
    words = f'picture {shown(path)}'
    height, width = _declared_size(content, words)
    if height * width > MOST_PIXELS or max(height, width) > LONGEST_SIDE:
        raise BpuError(f'{words}: expected at most {MOST_PIXELS} px and sides of at most '
                       f'{LONGEST_SIDE} px, found {width} x {height}; make it smaller')
    try:
        return decode_image(content, 'color', 'cv2')
    except (DecodeError, cv2.error, MemoryError) as error:
        raise BpuError(f'{words} cannot be decoded ({len(content)} bytes); expected one of '
                       f'{", ".join(SUFFIXES)}') from error


def picture_size(path: Union[str, Path]) -> Tuple[int, int]:
    """(height, width) px by the header of a file, turned as its EXIF orientation says.

    Raises:
        BpuError: It is no file or no picture.
    """
    words = f'picture {shown(path)}'
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # the readers of formats share no class of errors
        raise BpuError(f'{words} cannot be read ({type(error).__name__}); expected one of '
                       f'{", ".join(SUFFIXES)}') from error


def shown(path: Union[str, Path]) -> str:
    """A path as text that every terminal and file takes: odd bytes of its name as escapes."""
    return str(path).encode('utf-8', 'backslashreplace').decode('utf-8')


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _content(path: Path) -> bytes:
    words = f'picture {shown(path)}'
    try:
        # Opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        if os.path.islink(path):
            reason += ', a link'
        raise BpuError(f'{words} cannot be read ({reason})') from error
    with os.fdopen(descriptor, 'rb') as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = next((name for is_kind, name in NOT_FILES.items() if is_kind(found.st_mode)),
                        'something else')
            raise BpuError(f'{words}: expected a file, found {kind}')
        if found.st_size > MOST_BYTES:
            raise BpuError(f'{words}: expected at most {MOST_BYTES} bytes, found {found.st_size}')
        try:
            return file.read(MOST_BYTES)
        except OSError as error:
            raise BpuError(f'{words} cannot be read ({error.strerror})') from error


def _declared_size(content: bytes, words: str) -> Tuple[int, int]:
    """(height, width) px that a header declares, before anything is allocated for it."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decompressed here
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.height, image.width
    except Exception as error:  # the readers of formats share no class of errors
        raise BpuError(f'{words} cannot be decoded ({len(content)} bytes); expected one of '
                       f'{", ".join(SUFFIXES)}') from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
