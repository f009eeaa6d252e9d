"""Decode the bytes of an image file, with libjpeg-turbo besides the backends of mmcv.

Whatever the backend ``'simplejpeg'`` cannot do goes to OpenCV, so that its results are those of
``'cv2'``: other formats than JPEG, CMYK, damaged streams, other colours than BGR.
"""
import functools
import importlib
import struct
from typing import NamedTuple, Optional, Sequence

import cv2
import mmcv
import numpy as np
from mmcv.image.io import imread_flags

from mmdet_bpu.errors import BpuError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

SIMPLEJPEG = 'simplejpeg'
BACKENDS = (*mmcv.image.supported_backends, SIMPLEJPEG)
COLOR_TYPES = tuple(imread_flags)
# Packages that mmdet_bpu does not require: module, and how to get it.
OPTIONAL_PACKAGES = {
    SIMPLEJPEG: ('simplejpeg', 'pip install "mmdet_bpu[turbo]" or pip install simplejpeg'),
    'turbojpeg': ('turbojpeg', 'pip install PyTurboJPEG'),
    'tifffile': ('tifffile', 'pip install tifffile'),
}

BGR_COLOR_TYPES = ('color', 'color_ignore_orientation')
TURBO_COMPONENTS = (1, 3)  # CMYK is left to OpenCV, which has its own way to make BGR of it

# JPEG markers (ITU-T T.81, table B.1).
START_OF_IMAGE = b'\xff\xd8'
START_OF_SCAN = 0xDA
APP1 = 0xE1  # Exif and XMP
START_OF_DCT_FRAME = frozenset([0xC0, 0xC1, 0xC2, 0xC9, 0xCA])  # lossless ones cannot be reduced
WITHOUT_LENGTH = frozenset([0x00, 0x01, *range(0xD0, 0xDA)])

# Exif orientation: whether rows and columns change places, then the axes of cv2.flip (0 upside
# down, 1 left to right, -1 both). Exif 2.32, tag 0x0112.
ORIENTATIONS = {
    1: (False, None), 2: (False, 1), 3: (False, -1), 4: (False, 0),
    5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0),
}

# Scales of the inverse DCT that pay: 3/8, 5/8, 6/8 and 7/8 have no SIMD code in libjpeg-turbo.
# Measured on 640x480 photos: 2.5 ms in full, 4.4 ms at 7/8, 3.0 at 5/8, 2.4 at 4/8, 2.1 at 2/8.
REDUCED_COLOR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
                 8: cv2.IMREAD_REDUCED_COLOR_8}
REDUCED_GREY = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
                8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
DIVISORS = tuple(REDUCED_COLOR)


class DecodeError(BpuError):
    """The bytes are no image that the backend can decode. The message lacks the image's name."""


class JpegHeader(NamedTuple):
    """What stands before the first scan of a JPEG file.

    Attributes:
        height (int): Rows as stored, in px.
        width (int): Columns as stored, in px.
        components (int): Colour components: 1 for grey, 3 for YCbCr or RGB, 4 for CMYK.
        app1 (Sequence[memoryview]): The whole APP1 segments (Exif, XMP), pointing into the file.
    """
    height: int
    width: int
    components: int
    app1: Sequence[memoryview]

    def orientation(self) -> Optional[int]:
        """The Exif orientation by which OpenCV turns the image, 1 to 8; None if it is not clear."""
        return _orientation_in_opencv(self.app1) if self.app1 else 1


def check_decoder(owner: str, backend: Optional[str], color_type: str) -> None:
    """Refuse what :func:`decode_image` could not do with any image.

    Args:
        owner (str): Name of the transform, for the message.
        backend (str, optional): Name of the backend; None is the one of ``mmcv.use_backend``.
        color_type (str): What to decode to.

    Raises:
        BpuError: If a name is unknown or the backend's package is not installed.
    """
    if backend is not None and backend not in BACKENDS:
        raise BpuError(f'{owner}: expected imdecode_backend to be one of {list(BACKENDS)}, found '
                       f'{backend!r}')
    if color_type not in COLOR_TYPES:
        raise BpuError(f'{owner}: expected color_type to be one of {list(COLOR_TYPES)}, found '
                       f'{color_type!r}')
    if backend in OPTIONAL_PACKAGES:
        module, install = OPTIONAL_PACKAGES[backend]
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise BpuError(f'{owner}: imdecode_backend={backend!r} needs the package {module} '
                           f'({error}): {install}') from None


def decode_image(content, color_type: str = 'color', backend: Optional[str] = 'cv2') -> np.ndarray:
    """Decode an image file.

    Args:
        content (bytes-like): The file: bytes, or a memoryview, which is not copied on its way to
            'cv2' and 'simplejpeg'.
        color_type (str): Flag of :func:`mmcv.imfrombytes`. Defaults to 'color': BGR, turned as
            the Exif orientation says.
        backend (str, optional): Backend of :func:`mmcv.imfrombytes`, or 'simplejpeg', which gives
            what 'cv2' gives. Defaults to 'cv2'.

    Returns:
        ndarray: ``(H, W, 3)``, or ``(H, W)`` where 'cv2' gives that.

    Raises:
        DecodeError: If it is empty or the backend cannot decode it.
    """
    if len(content) == 0:
        raise DecodeError('is empty (0 bytes)')
    if backend == SIMPLEJPEG:
        image = _decode_by_simplejpeg(content, color_type)
        if image is not None:
            return image
        backend = 'cv2'
    if backend == 'cv2':
        return _decode_by_opencv(content, imread_flags[color_type])
    return _decode_by_mmcv(content, color_type, backend)


def decode_reduced(content, header: JpegHeader, divisor: int, color_type: str,
                   backend: str) -> np.ndarray:
    """Decode a JPEG file at a fraction of its size, by a smaller inverse DCT; never turned.

    Args:
        content (bytes-like): The file.
        header (JpegHeader): What :func:`read_jpeg_header` gives for it.
        divisor (int): 2, 4 or 8.
        color_type (str): Any but 'unchanged'; the orientation is left alone.
        backend (str): 'cv2' or 'simplejpeg'.

    Returns:
        ndarray: ``(ceil(height / divisor), ceil(width / divisor)[, 3])``. Where the division leaves
        a rest, the last row or column reaches beyond the image.

    Raises:
        DecodeError: If it cannot be decoded.
    """
    in_bgr = color_type in BGR_COLOR_TYPES
    if backend == SIMPLEJPEG and in_bgr and header.components in TURBO_COMPONENTS:
        try:
            return simplejpeg.decode_jpeg(content, 'BGR', min_height=-(-header.height // divisor),
                                          min_width=-(-header.width // divisor))
        except ValueError:
            pass
    flag = (REDUCED_COLOR if in_bgr else REDUCED_GREY)[divisor] | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode_by_opencv(content, flag)


def read_jpeg_header(content) -> Optional[JpegHeader]:
    """Walk the segments of a JPEG file up to its first scan (some microseconds).

    Args:
        content (bytes-like): The file.

    Returns:
        JpegHeader | None: None for other formats, and for headers that only a tolerant decoder
        can read.
    """
    view = memoryview(content).cast('B')
    if view[:2] != START_OF_IMAGE:
        return None
    position, frame, app1 = 2, None, []
    try:
        while True:
            prefix, marker, length = struct.unpack_from('>BBH', view, position)
            if prefix != 0xFF or marker in WITHOUT_LENGTH:
                return None
            if marker == 0xFF:  # a fill byte
                position += 1
                continue
            if marker == START_OF_SCAN:
                break
            if marker in START_OF_DCT_FRAME:
                frame = struct.unpack_from('>HHB', view, position + 5)
            elif marker == APP1:
                app1.append(view[position:position + 2 + length])
            position += 2 + length
    except struct.error:
        return None
    return JpegHeader(*frame, app1) if frame and all(frame) else None


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as its Exif orientation says, so that it stands upright.

    Args:
        image (ndarray): ``(H, W)`` or ``(H, W, 3)``, as stored.
        orientation (int): 1 (upright) to 8.

    Returns:
        ndarray: ``(H, W, ...)``, or ``(W, H, ...)`` for 5 to 8.
    """
    transposed, axes = ORIENTATIONS[orientation]
    if transposed:
        image = cv2.transpose(image)
    return image if axes is None else cv2.flip(image, axes)


def _decode_by_opencv(content, flag: int) -> np.ndarray:
    """What mmcv does for ``'cv2'``, in fewer steps."""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise DecodeError(f"cannot be decoded by 'cv2' ({error})") from error
    if image is None:
        raise DecodeError("cannot be decoded by 'cv2'")
    return image


def _decode_by_mmcv(content, color_type: str, backend: Optional[str]) -> np.ndarray:
    try:
        image = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    except Exception as error:  # the decoders behind mmcv share no class of errors
        raise DecodeError(f"cannot be decoded by '{backend}' ({error})") from error
    if image is None:
        raise DecodeError(f"cannot be decoded by '{backend}'")
    return image


def _decode_by_simplejpeg(content, color_type: str) -> Optional[np.ndarray]:
    """BGR image, or None where OpenCV has to decide."""
    header = read_jpeg_header(content) if color_type in BGR_COLOR_TYPES else None
    if header is None or header.components not in TURBO_COMPONENTS:
        return None
    orientation = header.orientation() if color_type == 'color' else 1
    if orientation is None:
        return None
    try:
        # strict=True is the default: it refuses what libjpeg-turbo would decode with a warning.
        return orient(simplejpeg.decode_jpeg(content, 'BGR'), orientation)
    except ValueError:
        return None


def _orientation_in_opencv(app1: Sequence[memoryview]) -> Optional[int]:
    """Put the segments into a tiny image and see how OpenCV turns it (20 us).

    Readers of Exif disagree on what is not quite as the standard says (types, repeated tags, XMP
    before Exif, values out of range), and releases of OpenCV do too.
    """
    probe, pictures = _probe()
    turned = _decode_probe(b''.join((START_OF_IMAGE, *app1, probe[len(START_OF_IMAGE):])))
    for orientation, picture in pictures.items():
        if np.array_equal(picture, turned):
            return orientation
    return None


@functools.cache
def _probe() -> tuple[bytes, dict[int, np.ndarray]]:
    """A JPEG file without Exif, and the image that it should give in each orientation."""
    ramp = np.linspace(0, 255, 8 * 16).reshape(8, 16).astype(np.uint8)
    probe = cv2.imencode('.jpg', ramp)[1].tobytes()
    stored = _decode_probe(probe)
    return probe, {orientation: orient(stored, orientation) for orientation in ORIENTATIONS}


def _decode_probe(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
