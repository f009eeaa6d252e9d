"""Read a packed COCO data set: opened late, once per process, values handed out without a copy."""
import os
import threading
from pathlib import Path
from typing import Any, Callable

import lmdb
import numpy as np
import xxhash

from mmdet_bpu.datasets.checked_images import CheckedImages
from mmdet_bpu.datasets.image_index import ImageIndex, ids_of_file_names
from mmdet_bpu.datasets.lmdb_environment import Reading, open_environment
from mmdet_bpu.datasets.lmdb_format import (CHECKSUM_BYTES, COCO_KEY, DATA_FILE, FORMAT,
                                            IMAGE_PREFIX, INDEX_CATEGORIES_KEY, INDEX_FILES_KEY,
                                            INDEX_IDS_KEY, INDEX_IMAGES_KEY, INDEX_SHA256_KEY,
                                            META_KEY, SHARD_FORMAT, checksum, decode_json,
                                            decode_record, describe_damage, describe_key,
                                            encode_json, image_files, image_key, instances_key,
                                            json_key, shard_of)
from mmdet_bpu.datasets.lmdb_schema import (check_coco_fields, check_entry, check_index,
                                            check_meta, check_sample, index_table)
from mmdet_bpu.datasets.sample_record import decode_sample
from mmdet_bpu.errors import BpuError

PACK_HINT = 'pack it with: tools/pack_coco_lmdb.py --img-dir DIR --ann FILE --out DIR'
VERIFY_HINT = 'check it with: tools/pack_coco_lmdb.py --verify'

_stores: dict[str, 'CocoStore'] = {}


def open_store(path: str | Path, fresh: bool = False) -> 'CocoStore':
    """The store of this process for a database, opened at its first read.

    Args:
        path (str | Path): Folder of the database.
        fresh (bool): Look at the file system again, because the database may have been packed anew
            under its old name. Defaults to False.

    Returns:
        CocoStore: The same object for the same path.
    """
    path = os.fspath(path)
    if fresh or path not in _stores:
        _stores[path] = CocoStore(path)
    return _stores[path]


class CocoStore:
    """A packed COCO data set, read-only.

    Holds a path until the first read, so that it can be sent to spawned workers; a forked worker
    opens the database again by itself. Many processes may read one database, also from a read-only
    file system: no lock file is used. Its own memory does not depend on the number of images.

    Args:
        path (str | Path): Folder of the database, as written by ``tools/pack_coco_lmdb.py``.
        strict (bool): Refuse a database that does not hold as many records as were packed. Defaults
            to True.

    Raises:
        BpuError: At the first read, if the database is missing, truncated, not finished, not a
            packed COCO data set, or of another schema version.
    """

    def __init__(self, path: str | Path, strict: bool = True) -> None:
        self.path = os.fspath(path)
        self.strict = strict
        self._pid = -1
        self._environments: list[lmdb.Environment] = []  # the index first, then the shards
        self._of_thread = threading.local()
        self._meta: dict | None = None
        self._identity = 0
        self._names_checked = False
        self._checked: CheckedImages | None = None

    def __getstate__(self) -> dict:
        return {'path': self.path, 'strict': self.strict}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    @property
    def meta(self) -> dict:
        """Format, version, counts and source of the database."""
        if self._pid != os.getpid():
            self._open()
        return self._meta

    @property
    def identity(self) -> int:
        """A number that differs if a database is packed anew under its name with other content."""
        if self._pid != os.getpid():
            self._open()
        return self._identity

    def read_index(self) -> ImageIndex:
        """Ids, sizes and categories of all images, in the order of the source file.

        Read anew at each call, so that a worker keeps none of it (34 bytes for each COCO image).
        """
        counts = self.meta['counts']
        images, row_bytes = counts['images'], -(-counts['categories'] // 8)

        def read_table(payload: memoryview) -> np.ndarray:
            table = index_table(payload, images, 24).reshape(images, 3)
            check_index(*table.T)
            return table

        bits = self._content(INDEX_CATEGORIES_KEY, lambda payload: index_table(
            payload, images, row_bytes, 'u1'))
        return ImageIndex.from_tables(self._content(INDEX_IMAGES_KEY, read_table),
                                      bits.reshape(images, row_bytes))

    def read_sha256(self) -> dict[int, bytes]:
        """Image id to the SHA-256 of the image file that was packed, 32 bytes."""
        ids = self.read_index().ids.tolist()
        hashes = self._content(INDEX_SHA256_KEY, lambda payload: index_table(
            payload, len(ids), 32, 'u1').reshape(len(ids), 32))
        return {image_id: row.tobytes() for image_id, row in zip(ids, hashes)}

    def __len__(self) -> int:
        return self.meta['counts']['images']

    def read(self, key: bytes, check: bool = True) -> Reading:
        """The payload of one record, as a context manager.

        Args:
            key (bytes): Key of the record.
            check (bool): Compare its checksum, which reads all of it. Defaults to True.

        Returns:
            Reading: Its value, a memoryview, points into the mapped file and is valid in the block.

        Raises:
            BpuError: If there is no such record or its checksum does not match.
        """
        # Done twice for every sample: few steps, and the words only where they are needed.
        transaction = self._transaction_for(key)
        value = self._value(transaction, key)
        if value is None:
            raise BpuError(f'{self.path}: {self._why_missing(key)}')
        payload = value[:-CHECKSUM_BYTES]
        if check and checksum(key, payload) != value[-CHECKSUM_BYTES:]:
            raise BpuError(f'{self.path}: {describe_damage(key)}; {VERIFY_HINT} {self.path}')
        return Reading(payload, transaction)

    def _content(self, key: bytes, decode: Callable[[memoryview], Any], check: bool = True) -> Any:
        """What a record holds; behind a valid checksum it may still be anything."""
        with self.read(key, check) as payload:
            try:
                return decode(payload)
            except (ValueError, RecursionError) as error:  # of BpuError, UTF-8, JSON and its depth
                raise BpuError(f'{self.path}: {describe_key(key)} is not what a packer writes '
                               f'({error}); {VERIFY_HINT} {self.path}') from None

    def image(self, image_id: int) -> Reading:
        """Context manager of the encoded image, a memoryview valid in the block.

        Its checksum is compared the first time that this process reads it: each time would cost
        some 60 us, 2 % of decoding it, most of it for waiting for memory.
        """
        if self._pid != os.getpid() or self._checked is None:
            images = self.meta['counts']['images']
            ids = self._content(INDEX_IDS_KEY, lambda payload: index_table(payload, images, 8))
            self._checked = CheckedImages(ids, self._transaction_for(INDEX_IDS_KEY))
        position = self._checked.position(image_id)
        reading = self.read(image_key(image_id), check=not self._checked.marks[position])
        self._checked.marks[position] = True
        return reading

    def instances(self, image_id: int) -> dict:
        """What a data set needs of an image but its pixels, see :mod:`.sample_record`."""
        return self._content(instances_key(image_id),
                             lambda payload: check_sample(decode_sample(payload)))

    def annotations(self, image_id: int) -> tuple[dict, list[dict]]:
        """The source file's description of an image, and its annotations in their order."""
        return self._content(json_key(image_id),
                             lambda payload: check_entry(decode_json(payload), image_id))

    def image_id_of(self, *file_names: str) -> int | None:
        """Id of the image with the first of these ``file_name``s that there is, None if none is.

        Reads little: the index has its checksum compared at the first call only, and what it says
        is confirmed by the image's own record.
        """
        images = self.meta['counts']['images']
        candidates = self._content(
            INDEX_FILES_KEY, lambda payload: ids_of_file_names(
                index_table(payload, images, 16).reshape(2, images), file_names),
            check=not self._names_checked)
        self._names_checked = True
        for file_name, image_id in candidates:
            if self.instances(image_id)['file_name'] == file_name:
                return image_id
        return None

    def coco_fields(self) -> dict:
        """All fields of the source file but ``images`` and ``annotations``."""
        categories = self.meta['counts']['categories']
        return self._content(
            COCO_KEY, lambda payload: check_coco_fields(decode_json(payload), categories))

    def to_coco(self) -> dict:
        """The whole annotation file, images in its order, annotations grouped by image."""
        content = self.coco_fields()
        content['images'], content['annotations'] = [], []
        for image_id in self.read_index().ids.tolist():
            image, annotations = self.annotations(image_id)
            content['images'].append(image)
            content['annotations'].extend(annotations)
        return content

    def _transaction_for(self, key: bytes) -> lmdb.Transaction:
        """This thread's transaction on the file that holds a key.

        Begun once: nobody writes to a packed database, and nothing is locked by it.
        """
        if self._pid != os.getpid():
            self._open()
        try:
            transactions = self._of_thread.transactions
        except AttributeError:
            transactions = [environment.begin(buffers=True) for environment in self._environments]
            self._of_thread.transactions = transactions
        if len(transactions) > 1 and key.startswith(IMAGE_PREFIX):
            return transactions[1 + shard_of(key, len(transactions) - 1)]
        return transactions[0]

    def _value(self, transaction: lmdb.Transaction, key: bytes) -> memoryview | None:
        try:
            return transaction.get(key)
        except lmdb.Error as error:
            raise BpuError(f'{self.path}: {describe_key(key)} cannot be read, LMDB reports {error};'
                           f' {VERIFY_HINT} {self.path}') from None

    def _why_missing(self, key: bytes) -> str:
        number = key.rpartition(b'/')[2]
        if not number.isdigit() or int(number) in self.read_index().ids:
            return f'{describe_key(key)} is lost, its record is damaged; {VERIFY_HINT} {self.path}'
        return f'there is no {describe_key(key)} in this database'

    def _open(self) -> None:
        environment = self._open_file(DATA_FILE)
        meta = self._checked_meta(environment, DATA_FILE, FORMAT)
        environments = [environment]
        if meta['shards'] > 1:
            for number, name in enumerate(image_files(meta['shards'])):
                environments.append(self._open_file(name))
                self._check_shard(environments[-1], name, number, meta)
        self._environments, self._meta = environments, meta
        self._identity = xxhash.xxh3_64_intdigest(encode_json(meta))
        self._of_thread = threading.local()
        self._checked = None
        self._pid = os.getpid()

    def _open_file(self, name: str) -> lmdb.Environment:
        try:
            return open_environment(os.path.join(self.path, name))
        except OSError as error:
            if name != DATA_FILE:
                raise BpuError(f'{self.path} lacks its file {name} ({error.strerror}); copy all '
                               f'files of the folder, or {PACK_HINT}') from None
            what = f'no {DATA_FILE} in it' if os.path.isdir(self.path) else error.strerror
            raise BpuError(
                f'no packed COCO data set at {self.path} ({what}); {PACK_HINT}') from None

    def _checked_meta(self, environment: lmdb.Environment, name: str,
                      expected_format: str) -> dict:
        path = self.path if name == DATA_FILE else os.path.join(self.path, name)
        with environment.begin(buffers=True) as transaction:
            value = self._value(transaction, META_KEY)
            if value is None:
                raise BpuError(f'{path} is an LMDB database without a packed COCO data set, '
                               f"or packing stopped before its end (no 'meta' record); {PACK_HINT}")
            try:
                meta = decode_json(decode_record(META_KEY, value))
            except (ValueError, RecursionError) as error:
                raise BpuError(f"{path}: the 'meta' record is not one of a packed COCO data "
                               f'set ({error}); {PACK_HINT}') from None
        try:
            check_meta(meta, expected_format)
        except BpuError as error:
            raise BpuError(f'{path} {error}; {PACK_HINT}') from None
        expected, found = meta['counts']['records'], environment.stat()['entries']
        if self.strict and found != expected:
            raise BpuError(f'{path} should hold {expected} records, found {found}: it is damaged; '
                           f'{VERIFY_HINT} {self.path}')
        return meta

    def _check_shard(self, environment: lmdb.Environment, name: str, number: int,
                     meta: dict) -> None:
        shard = self._checked_meta(environment, name, SHARD_FORMAT)
        found = (shard['shard'], shard['shards'], shard['source'])
        if found != (number, meta['shards'], meta['source']):
            raise BpuError(f'{os.path.join(self.path, name)} belongs to another packing than '
                           f'{DATA_FILE} beside it (shard {shard["shard"]} of {shard["shards"]} of '
                           f'{shard["source"]["annotation_file"]}); copy the whole folder again')
