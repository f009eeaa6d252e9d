"""What the bytes of a packed COCO data set mean: files, keys, records, checksums, schema version.

A database is a folder. ``data.mdb`` is an LMDB environment with these records, in this key order,
which is also the order in which they are written, so that every write is an append:

====================  =========================================================================
``coco``              JSON of every field of the source file but images and annotations
``image/<id>``        the bytes of the image file, untouched
``index/categories``  uint8 ``(N, ceil(K / 8))``: bit k of row n is set if image n has an
                      annotation of the k-th category (any, crowds included)
``index/files``       int64 ``(2, N)``: XXH3-64 of each ``file_name``, ascending, and image ids
``index/ids``         int64 ``(N,)``: image ids, ascending
``index/images``      int64 ``(N, 3)``: id, width, height in the order of the source file
``index/sha256``      uint8 ``(N, 32)``: SHA-256 of the image files, in the same order
``instances/<id>``    JSON of :func:`mmdet_bpu.datasets.sample_record.sample_of`: what a data set
                      needs of one image
``json/<id>``         JSON ``{"image": {...}, "annotations": [...]}`` of one image, as in the
                      source file and in its order
``meta``              JSON: format, version, counts, source, what was left out. Written last: a
                      database without it is not complete
====================  =========================================================================

Packed into S > 1 shards, the ``image/`` records are in ``images-<s>-of-<S>.mdb`` beside it: image
``<id>`` in shard ``crc32(key) % S``. Each shard has a ``meta`` record too.

``<id>`` is the COCO image id, decimal, padded to 19 digits. Every value ends in 8 more bytes: the
XXH3-64 (big-endian) of the payload, seeded with the CRC-32 of the key. At the end, because JPEG and
PNG decoders ignore what follows the image: the raw value of an ``image/`` record still decodes in
any other LMDB reader. XXH3 and not a CRC because it is on the way of every sample: 8 us for a
170 KB image in the processor's cache, where CRC-32 took 96 us.
"""
import json
import zlib

import xxhash

from mmdet_bpu.errors import BpuError

FORMAT = 'mmdet_bpu.coco_lmdb'
SHARD_FORMAT = 'mmdet_bpu.coco_lmdb.images'
# Raised when a reader of the version before would misread the records.
SCHEMA_VERSION = 2
DATA_FILE = 'data.mdb'
CHECKSUM_BYTES = 8
ID_DIGITS = 19  # of 2**63 - 1
MAX_IMAGE_ID = 2**63 - 1
MAX_SHARDS = 1000

META_KEY = b'meta'
COCO_KEY = b'coco'
INDEX_CATEGORIES_KEY = b'index/categories'
INDEX_FILES_KEY = b'index/files'
INDEX_IDS_KEY = b'index/ids'
INDEX_IMAGES_KEY = b'index/images'
INDEX_SHA256_KEY = b'index/sha256'
IMAGE_PREFIX = b'image/'
INSTANCES_PREFIX = b'instances/'
JSON_PREFIX = b'json/'


def image_key(image_id: int) -> bytes:
    """Key of the encoded image ``image_id``."""
    return b'image/%0*d' % (ID_DIGITS, image_id)


def instances_key(image_id: int) -> bytes:
    """Key of what a data set needs of ``image_id`` but its pixels."""
    return b'instances/%0*d' % (ID_DIGITS, image_id)


def json_key(image_id: int) -> bytes:
    """Key of the annotation file's entries for ``image_id``."""
    return b'json/%0*d' % (ID_DIGITS, image_id)


def shard_of(key: bytes, shards: int) -> int:
    """Which of ``shards`` holds the image record ``key``."""
    return zlib.crc32(key) % shards


def image_files(shards: int) -> list[str]:
    """Names of the files that hold the image records, by shard; one shard is the database file."""
    if shards == 1:
        return [DATA_FILE]
    return [f'images-{shard:05d}-of-{shards:05d}.mdb' for shard in range(shards)]


def checksum(key: bytes, payload) -> bytes:
    """XXH3-64 of a payload, seeded by its key: a record under a wrong key does not pass.

    Args:
        key (bytes): Key of the record.
        payload (bytes-like): Any buffer, read in place.

    Returns:
        bytes: 8 bytes, big-endian.
    """
    return xxhash.xxh3_64_digest(payload, zlib.crc32(key))


def encode_record(key: bytes, payload: bytes) -> bytes:
    """The value stored under ``key``: payload and checksum."""
    return payload + checksum(key, payload)


def decode_record(key: bytes, value: memoryview) -> memoryview:
    """The payload of a stored value, without a copy.

    Raises:
        BpuError: If the checksum differs. The message names the record, not the database, which the
            caller knows.
    """
    payload = value[:-CHECKSUM_BYTES]
    if len(value) < CHECKSUM_BYTES or checksum(key, payload) != value[-CHECKSUM_BYTES:]:
        raise BpuError(describe_damage(key))
    return payload


def describe_damage(key: bytes) -> str:
    """What a wrong checksum says, in words."""
    return f'{describe_key(key)} is damaged: its checksum does not match its bytes'


def describe_key(key: bytes) -> str:
    """A record in words, e.g. ``image 139`` for ``image/0000000000000000139``."""
    name, _, number = key.decode('ascii', 'replace').partition('/')
    words = {'image': 'image', 'instances': 'instance record of image',
             'json': 'annotation record of image'}
    if name in words and number.isdigit():
        return f'{words[name]} {int(number)}'
    return f"record {ascii(key.decode('latin-1'))}"  # a damaged key may hold anything


def encode_json(content) -> bytes:
    """Compact JSON in UTF-8. Floats come back equal: they are written shortest round-trip.

    Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as its JSON escape.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(',', ':'))
    return text.encode('utf-8', 'backslashreplace')


def decode_json(payload):
    """Inverse of :func:`encode_json`, from any buffer."""
    return json.loads(str(payload, 'utf-8'))
