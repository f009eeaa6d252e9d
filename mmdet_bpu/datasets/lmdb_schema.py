"""What each record of a packed data set has to look like: a checksum says who wrote it, not what.

Every function takes the content of a record and raises a :class:`BpuError` that continues the
record's name. Sizes are compared with the counts of the ``meta`` record, and these with the file,
before anything of that size is made.
"""
import reprlib
from typing import Any, Optional

import numpy as np

from mmdet_bpu.datasets.coco_annotations import MAX_PX, MAX_SIDE, check_entries
from mmdet_bpu.datasets.lmdb_format import MAX_IMAGE_ID, MAX_SHARDS, SCHEMA_VERSION, SHARD_FORMAT
from mmdet_bpu.errors import BpuError

# `coco`, five of `index/`, `meta`; of each image `instances/`, `json/` and perhaps `image/`.
RECORDS_BESIDE_IMAGES = 7
MAX_CORNER = 2 * MAX_PX  # px: a corner is a place plus a side
COUNTS = ('images', 'annotations', 'categories', 'image_bytes', 'records')
SHARD_COUNTS = ('images', 'image_bytes', 'records')
Number = (int, float)


def check_meta(meta: Any, expected_format: str) -> dict:
    """The content of a ``meta`` record, if it is of this format and version.

    Raises:
        BpuError: If it is not; the message continues the name of the database.
    """
    if not isinstance(meta, dict) or meta.get('format') != expected_format:
        raise BpuError(f"does not hold format '{expected_format}'")
    version = meta.get('version')
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise BpuError(f'has schema version {str(version)[:40]}, this mmdet_bpu reads version '
                       f'{SCHEMA_VERSION}: ' + ('update mmdet_bpu or pack the data set again'
                                                if newer else 'pack the data set again'))
    of_shard = expected_format == SHARD_FORMAT
    shards = meta.get('shards')
    _expect(_is_count(shards) and 1 <= shards <= MAX_SHARDS, 'shards', f'1 to {MAX_SHARDS}', shards)
    counts = _field(meta, 'counts', dict, 'numbers by name')
    for name in SHARD_COUNTS if of_shard else COUNTS:
        count = counts.get(name)
        _expect(_is_count(count), f'counts.{name}', 'a number of things', count)
    records = counts['images'] + 1 if of_shard else (
        counts['images'] * (3 if shards == 1 else 2) + RECORDS_BESIDE_IMAGES)
    _expect(counts['records'] == records, 'counts.records', f"{records} for {counts['images']} "
            'images', counts['records'])
    source = _field(meta, 'source', dict, 'names')
    for name in ('annotation_file', 'annotation_sha256', 'image_folder'):
        _expect(isinstance(source.get(name), str), f'source.{name}', 'a name', source.get(name))
    if of_shard:
        _expect(_is_count(meta.get('shard')), 'shard', 'a number', meta.get('shard'))
    else:
        _field(meta, 'images_sha256', str, 'a hash')
        _check_report(_field(meta, 'report', dict, 'skipped and notices'))
    return meta


def check_coco_fields(fields: Any, categories: int) -> dict:
    """The content of the record ``coco``, of as many categories."""
    found = fields.get('categories') if isinstance(fields, dict) else None
    if not isinstance(found, list) or len(found) != categories:
        raise BpuError(f'expected an object with a list of {categories} categories, found '
                       f'{reprlib.repr(fields)}')
    check_entries('', 'categories', found)
    return fields


def check_entry(record: Any, image_id: int) -> tuple[dict, list[dict]]:
    """Image and annotations of a record ``json/<id>``, as the packer takes them."""
    image = record.get('image') if isinstance(record, dict) else None
    annotations = record.get('annotations') if isinstance(record, dict) else None
    if not isinstance(annotations, list):
        raise BpuError(f'expected an image and its annotations, found {reprlib.repr(record)}')
    check_entries('', 'images', [image])
    _check_file_name(image['file_name'])
    check_entries('', 'annotations', annotations)
    for entry, name in ((image, 'id'), *((entry, 'image_id') for entry in annotations)):
        _expect(entry[name] == image_id, name, image_id, entry[name])
    return image, annotations


def check_sample(sample: Any) -> dict:
    """The content of a record ``instances/<id>``. On the way of every sample: few steps."""
    try:
        file_name, instances = sample['file_name'], sample['instances']
        for side in ('width', 'height'):
            size = sample[side]
            _expect(isinstance(size, Number) and 0 < size <= MAX_SIDE and not size % 1, side,
                    'a number of px', size)
        _check_file_name(file_name)
        _expect(isinstance(instances, list), 'instances', 'a list', instances)
        for instance in instances:
            box, category = instance['bbox'], instance['category_id']
            if not (isinstance(box, list) and len(box) == 4
                    and all(isinstance(v, Number) and -MAX_CORNER < v < MAX_CORNER for v in box)):
                raise BpuError(f'expected bbox (x1, y1, x2, y2) in px, found {reprlib.repr(box)}')
            if not isinstance(instance.get('mask', []), (list, dict)):
                raise BpuError('expected mask as polygons or a run-length encoding, found '
                               f"{reprlib.repr(instance['mask'])}")
            if not (isinstance(category, str) or abs(category) < 2**63):
                raise BpuError(f'expected category_id to be an id, found {reprlib.repr(category)}')
            if instance['ignore_flag'] not in (0, 1):
                raise BpuError('expected ignore_flag to be 0 or 1, found '
                               f"{reprlib.repr(instance['ignore_flag'])}")
    except KeyError as error:
        raise BpuError(f'lacks {error}') from None
    except TypeError:
        raise BpuError(f'expected a sample, found {reprlib.repr(sample)}') from None
    return sample


def index_table(payload: memoryview, images: int, row_bytes: int,
                dtype: str = '<i8') -> np.ndarray:
    """A record ``index/...`` in place, of as many images.

    Args:
        payload (memoryview): The record.
        images (int): N.
        row_bytes (int): What each takes.
        dtype (str): Of its values. Defaults to int64.

    Returns:
        ndarray: All values in one row.
    """
    if len(payload) != images * row_bytes:
        raise BpuError(f'expected {row_bytes} bytes for each of {images} images, found '
                       f'{len(payload)}')
    return np.frombuffer(payload, dtype=dtype)


def check_index(ids: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> None:
    """The columns of the record ``index/images``, int64 ``(N,)`` each."""
    for name, column, smallest, largest in (('id', ids, 0, MAX_IMAGE_ID),
                                            ('width', widths, 1, MAX_SIDE),
                                            ('height', heights, 1, MAX_SIDE)):
        wrong = column[(column < smallest) | (column > largest)]
        if len(wrong):
            raise BpuError(f'expected {name} from {smallest} to {largest}, found {wrong[0]}')
    if len(np.unique(ids)) != len(ids):
        raise BpuError('expected every id once')


def _check_file_name(name: Any) -> None:
    """A packed picture had a name that a file can have."""
    _expect(isinstance(name, str) and name and '\0' not in name, 'file_name', 'a name', name)


def _check_report(report: dict) -> None:
    for kind, found in _field(report, 'notices', dict, 'findings by kind').items():
        if not (isinstance(found, dict) and _is_count(found.get('count'))
                and _all_are(str, found.get('first'))):
            raise BpuError(f'report.notices: expected count and first names of {kind!r}, found '
                           f'{reprlib.repr(found)}')
    for skipped in _field(report, 'skipped', list, 'images'):
        if not (isinstance(skipped, dict) and _is_count(skipped.get('id')) and _all_are(
                str, [skipped.get('file_name'), skipped.get('reason')])):
            raise BpuError('report.skipped: expected id, file_name and reason, found '
                           f'{reprlib.repr(skipped)}')


def _field(content: dict, name: str, kind: type, what: str) -> Any:
    value = content.get(name)
    _expect(isinstance(value, kind), name, what, value)
    return value


def _expect(holds: Any, name: str, what: object, found: object) -> None:
    if not holds:
        raise BpuError(f'{name}: expected {what}, found {reprlib.repr(found)}')


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_IMAGE_ID


def _all_are(kind: type, values: Optional[list]) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)
