"""Is this the whole file of an image that training can decode?"""
import io
import re

from PIL import Image

from mmdet_bpu.datasets.decoding import ORIENTATIONS, DecodeError, decode_image, read_jpeg_header

# Most headers end in here; a JPEG with a large colour profile or thumbnail is parsed as a whole.
HEADER_BYTES = 1 << 15
JPEG_END = b'\xff\xd9'
# What follows 0xFF in a mark that a length or the end follows (ITU-T T.81, table B.1): in scan data
# 0xFF is always followed by 0 or a restart mark.
JPEG_MARK = re.compile(b'\xff[^\x00\x01\xd0-\xd8\xff]')
PNG_EXIF = b'eXIf'  # type of the chunk that may ask for a turn (PNG, third edition, 11.3.3.4)
PNG_END = b'IEND\xaeB`\x82'  # type and checksum of the last chunk, which has no content


class ImageFault(ValueError):
    """Why a file is not a usable image, in words that follow its name."""


def check_image(content, check: str, width: int, height: int) -> list[str]:
    """Check the bytes of an image file.

    Args:
        content (bytes-like): The whole file.
        check (str): ``'none'``: not empty. ``'header'``: an image header, and the file goes on to
            the end mark of its format (JPEG, PNG; other formats are decoded). ``'decode'``: also
            decode it, by what :class:`LoadImageFromLMDB` does in a stock pipeline.
        width (int): Width by the annotation file, px.
        height (int): Height by the annotation file, px.

    Returns:
        list[str]: What is unusual but usable: ``'not JPEG'``; ``'size differs'``, or ``'sides
        exchanged'``, if the image that training sees, turned as its Exif orientation says, has
        another size than the annotation file says, or its width and height the other way round.

    Raises:
        ImageFault: If the image cannot be used.
    """
    if not len(content):
        raise ImageFault('is an empty file')
    if check == 'none':
        return []
    name, stored = _read_header(content)
    if name in ('JPEG', 'MPO', 'PNG') and not _has_end(content, name):
        raise ImageFault(f'is truncated: no end of image in its {len(content)} bytes')
    size = _upright_size(content, name, stored) if check == 'header' else None
    size = size or _decoded_size(content)
    notices = [] if name in ('JPEG', 'MPO') else ['not JPEG']
    if size == (height, width) != (width, height):
        notices.append('sides exchanged')
    elif size != (width, height):
        notices.append('size differs')
    return notices


def _read_header(content) -> tuple[str, tuple[int, int]]:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decompressed here
    try:
        for part in (content[:HEADER_BYTES], content):
            try:
                with Image.open(io.BytesIO(part)) as image:
                    return image.format, image.size
            except Exception as error:  # the readers of formats share no class of errors
                fault = error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    raise ImageFault(f'is not a readable image ({type(fault).__name__}, {len(content)} bytes)')


def _has_end(content, name: str) -> bool:
    """Whether the data of a JPEG or PNG go on to their end mark; more bytes may follow it."""
    if content[-2:] == JPEG_END or content[-8:] == PNG_END:
        return True
    if name == 'PNG':
        return PNG_END in bytes(content)
    # From mark to mark: the end mark of a thumbnail is in the content of one, and is not seen.
    position = 0
    while mark := JPEG_MARK.search(content, position):
        if mark[0] == JPEG_END:
            return True
        position = mark.end() + int.from_bytes(content[mark.end():mark.end() + 2], 'big')
    return False


def _upright_size(content, name: str, stored: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height that training sees, by the header; None if it has to be decoded for them."""
    if name == 'PNG':
        return None if PNG_EXIF in bytes(content) else stored
    header = read_jpeg_header(content)
    orientation = header and header.orientation()
    if orientation is None:
        return None
    transposed, _ = ORIENTATIONS[orientation]
    return (header.height, header.width) if transposed else (header.width, header.height)


def _decoded_size(content) -> tuple[int, int]:
    try:
        image = decode_image(content)
    except DecodeError:
        raise ImageFault(f'cannot be decoded by OpenCV ({len(content)} bytes)') from None
    return image.shape[1], image.shape[0]
