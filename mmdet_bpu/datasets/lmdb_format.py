"""What the bytes of a packed COCO data set mean: keys, records, checksums, schema version.

One LMDB environment (a folder with ``data.mdb``) holds these records, in this key order, which is
also the order in which they are written, so that every write is an append:

========================  =====================================================================
``annotation/<id>``       JSON ``{"image": {...}, "annotations": [...]}`` of one image, as in the
                          source file and in its order
``coco``                  JSON of every other field of the source file (categories, info, ...)
``image/<id>``            the bytes of the image file, untouched
``index/categories``      uint8 ``(N, ceil(K / 8))``: bit k of row n is set if image n has an
                          annotation of the k-th category (any, crowds included)
``index/images``          int64 ``(N, 3)``: id, width, height in the order of the source file
``meta``                  JSON: format, version, counts, source hashes. Written last: a database
                          without it is not complete
========================  =====================================================================

``<id>`` is the COCO image id, decimal, padded to 19 digits. Every value ends in 4 more bytes: the
CRC-32 (little-endian) of key and payload. At the end, because JPEG and PNG decoders ignore what
follows the image: the raw value of an ``image/`` record still decodes in any other LMDB reader.
"""
import json
import zlib
from dataclasses import dataclass

import numpy as np

from mmdet_bpu.errors import BpuError

FORMAT = 'mmdet_bpu.coco_lmdb'
# Raised when a reader of the version before would misread the records.
SCHEMA_VERSION = 1
DATA_FILE = 'data.mdb'
CRC_BYTES = 4
ID_DIGITS = 19  # of 2**63 - 1
MAX_IMAGE_ID = 2**63 - 1

META_KEY = b'meta'
COCO_KEY = b'coco'
INDEX_IMAGES_KEY = b'index/images'
INDEX_CATEGORIES_KEY = b'index/categories'


def image_key(image_id: int) -> bytes:
    """Key of the encoded image ``image_id``."""
    return b'image/%0*d' % (ID_DIGITS, image_id)


def annotation_key(image_id: int) -> bytes:
    """Key of the image description and annotations of ``image_id``."""
    return b'annotation/%0*d' % (ID_DIGITS, image_id)


def checksum(key: bytes, payload) -> bytes:
    """CRC-32 of key and payload, 4 bytes: a record stored under a wrong key does not pass."""
    return zlib.crc32(payload, zlib.crc32(key)).to_bytes(CRC_BYTES, 'little')


def encode_record(key: bytes, payload: bytes) -> bytes:
    """The value stored under ``key``: payload and checksum."""
    return payload + checksum(key, payload)


def decode_record(key: bytes, value: memoryview) -> memoryview:
    """The payload of a stored value, without a copy.

    Raises:
        BpuError: If the checksum differs. The message names the record, not the database, which the
            caller knows.
    """
    payload = value[:-CRC_BYTES]
    if len(value) < CRC_BYTES or checksum(key, payload) != value[-CRC_BYTES:]:
        raise BpuError(f'{describe_key(key)} is damaged: its checksum does not match its bytes')
    return payload


def describe_key(key: bytes) -> str:
    """A record in words, e.g. ``image 139`` for ``image/0000000000000000139``."""
    name, _, number = key.decode('ascii', 'replace').partition('/')
    if name in ('image', 'annotation') and number.isdigit():
        return f'{"image" if name == "image" else "annotation record of image"} {int(number)}'
    return f"record '{key.decode('ascii', 'replace')}'"


def encode_json(content) -> bytes:
    """Compact JSON in UTF-8. Floats come back equal: they are written shortest round-trip."""
    return json.dumps(content, ensure_ascii=False, separators=(',', ':')).encode('utf-8')


def decode_json(payload) -> dict:
    """Inverse of :func:`encode_json`, from any buffer."""
    return json.loads(str(payload, 'utf-8'))


@dataclass(frozen=True)
class ImageIndex:
    """What can be asked of all images without reading their records.

    Attributes:
        ids (np.ndarray): int64 ``(N,)``, in the order of the source file.
        widths (np.ndarray): int64 ``(N,)``, px.
        heights (np.ndarray): int64 ``(N,)``, px.
        category_bits (np.ndarray): uint8 ``(N, ceil(K / 8))``, most significant bit first.
    """
    ids: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    category_bits: np.ndarray

    @classmethod
    def from_coco(cls, images: list[dict], annotations: dict[int, list[dict]],
                  categories: list[dict]) -> 'ImageIndex':
        """Build from the lists of a COCO file; ``annotations`` maps image id to its list."""
        column = {category['id']: k for k, category in enumerate(categories)}
        present = np.zeros((len(images), len(categories)), dtype=bool)
        for n, image in enumerate(images):
            for annotation in annotations.get(image['id'], ()):
                k = column.get(annotation['category_id'])
                if k is not None:
                    present[n, k] = True
        table = np.array([[image['id'], image['width'], image['height']] for image in images],
                         dtype=np.int64).reshape(len(images), 3)
        return cls(*table.T, np.packbits(present, axis=1))

    @classmethod
    def from_records(cls, images: memoryview, categories: memoryview) -> 'ImageIndex':
        """Inverse of :meth:`to_records`. Copies: the buffers end with their transaction."""
        table = np.frombuffer(images, dtype='<i8').reshape(-1, 3).astype(np.int64)
        bits = np.frombuffer(categories, dtype=np.uint8).copy()
        row_bytes = len(bits) // max(len(table), 1)
        return cls(*np.ascontiguousarray(table.T), bits.reshape(len(table), row_bytes))

    def to_records(self) -> dict[bytes, bytes]:
        """The two index records, by key, in key order."""
        table = np.stack([self.ids, self.widths, self.heights], axis=1)
        return {INDEX_CATEGORIES_KEY: self.category_bits.tobytes(),
                INDEX_IMAGES_KEY: table.astype('<i8').tobytes()}

    def has_any_category(self, columns: list[int]) -> np.ndarray:
        """bool ``(N,)``: images with an annotation of one of these categories (by position)."""
        if not len(self.ids) or not columns:
            return np.zeros(len(self.ids), dtype=bool)
        wanted = np.zeros(self.category_bits.shape[1] * 8, dtype=bool)
        wanted[columns] = True
        return (self.category_bits & np.packbits(wanted)).any(axis=1)

    def __len__(self) -> int:
        return len(self.ids)
