"""Read a packed COCO data set back: every record, its checksum, and that the parts agree."""
import os
from pathlib import Path

import lmdb

from mmdet_bpu.datasets.lmdb_format import (COCO_KEY, INDEX_CATEGORIES_KEY, INDEX_IMAGES_KEY,
                                            META_KEY, annotation_key, describe_key, image_key)
from mmdet_bpu.datasets.lmdb_store import CocoStore
from mmdet_bpu.errors import BpuError

DAMAGE_SHOWN = 10


def verify_database(path: str | Path) -> dict:
    """Read every record of a database.

    Args:
        path (str | Path): Folder of the database.

    Returns:
        dict: The ``meta`` record of a database without a fault.

    Raises:
        BpuError: If it cannot be opened, or a record is missing, damaged or foreign; the message
            names the records.
    """
    store = CocoStore(path, strict=False)
    counts = store.meta['counts']
    expected = {COCO_KEY, INDEX_IMAGES_KEY, INDEX_CATEGORIES_KEY, META_KEY}
    for image_id in store.index.ids.tolist():
        expected |= {image_key(image_id), annotation_key(image_id)}
    faults = []
    seen = set()
    annotations = image_bytes = 0
    try:
        for key in store.keys():
            seen.add(key)
            if key not in expected:
                faults.append(f'record {key!r} does not belong here')
                continue
            try:
                with store.read(key) as payload:
                    image_bytes += len(payload) if key.startswith(b'image/') else 0
                if key.startswith(b'annotation/'):
                    annotations += len(store.annotations(int(key.partition(b'/')[2]))[1])
            except BpuError as error:
                faults.append(str(error).partition(': ')[2].partition(';')[0])
    except lmdb.Error as error:
        faults.append(f'the database cannot be walked to its end ({error})')
    faults += [f'{describe_key(key)} is missing' for key in sorted(expected - seen)]
    if not faults and (annotations, image_bytes) != (counts['annotations'], counts['image_bytes']):
        faults.append(f"{counts['annotations']} annotations and {counts['image_bytes']} bytes of "
                      f'images expected, {annotations} and {image_bytes} found')
    if faults:
        more = f'; and {len(faults) - DAMAGE_SHOWN} more' if len(faults) > DAMAGE_SHOWN else ''
        raise BpuError(f'{os.fspath(path)} has {len(faults)} fault(s): '
                       f'{"; ".join(faults[:DAMAGE_SHOWN])}{more}. Pack it again')
    return store.meta
