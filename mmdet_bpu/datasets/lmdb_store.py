"""Read a packed COCO data set: opened late, once per process, values handed out without a copy."""
import os
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import lmdb

from mmdet_bpu.datasets.lmdb_format import (COCO_KEY, DATA_FILE, FORMAT, INDEX_CATEGORIES_KEY,
                                            INDEX_IMAGES_KEY, META_KEY, SCHEMA_VERSION,
                                            ImageIndex, annotation_key, decode_json,
                                            decode_record, describe_key, image_key)
from mmdet_bpu.errors import BpuError

PACK_HINT = 'pack it with: tools/pack_coco_lmdb.py --img-dir DIR --ann FILE --out DIR'
VERIFY_HINT = 'check it with: tools/pack_coco_lmdb.py --verify'

# lmdb refuses to open one file twice in a process, so all stores of a file share its environment.
_environments: 'weakref.WeakValueDictionary[tuple, lmdb.Environment]' = \
    weakref.WeakValueDictionary()
_stores: dict[str, 'CocoStore'] = {}
_opening = threading.RLock()


def _forget_environments_of_parent() -> None:
    """After a fork the child must not use what its parent opened; it opens its own to read."""
    global _opening
    _opening = threading.RLock()
    for environment in list(_environments.values()):
        environment.close()
    _environments.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_environments_of_parent)


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
    file system: no lock file is used.

    Args:
        path (str | Path): Folder of the database, as written by ``tools/pack_coco_lmdb.py``.
        strict (bool): Refuse a database that does not hold as many records as were packed. Defaults
            to True.

    Raises:
        BpuError: At the first read, if the database is missing, truncated, not finished, not a
            packed COCO data set, or of a newer schema version.
    """

    def __init__(self, path: str | Path, strict: bool = True) -> None:
        self.path = os.fspath(path)
        self.strict = strict
        self._pid = -1
        self._environment = None
        self._meta: dict | None = None
        self._index: ImageIndex | None = None

    def __getstate__(self) -> dict:
        return {'path': self.path, 'strict': self.strict}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    @property
    def meta(self) -> dict:
        """Format, version, counts and source of the database."""
        self._open()
        return self._meta

    @property
    def index(self) -> ImageIndex:
        """Ids, sizes and categories of all images, in the order of the source file."""
        self._open()
        if self._index is None:
            with self.read(INDEX_IMAGES_KEY) as images, \
                    self.read(INDEX_CATEGORIES_KEY) as categories:
                self._index = ImageIndex.from_records(images, categories)
        return self._index

    def __len__(self) -> int:
        return self.meta['counts']['images']

    @contextmanager
    def read(self, key: bytes) -> Iterator[memoryview]:
        """The checked payload of one record. It points into the mapped file, valid in the block.

        Raises:
            BpuError: If there is no such record or its checksum does not match.
        """
        with self._open().begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is None:
                raise BpuError(f'{self.path}: there is no {describe_key(key)} in this database')
            try:
                payload = decode_record(key, value)
            except BpuError as error:
                raise BpuError(f'{self.path}: {error}; {VERIFY_HINT} {self.path}') from None
            yield payload

    def image(self, image_id: int):
        """Context manager of the encoded image, a memoryview valid inside the block."""
        return self.read(image_key(image_id))

    def annotations(self, image_id: int) -> tuple[dict, list[dict]]:
        """The source file's description of an image, and its annotations in their order."""
        with self.read(annotation_key(image_id)) as payload:
            record = decode_json(payload)
        return record['image'], record['annotations']

    def coco_fields(self) -> dict:
        """All fields of the source file but ``images`` and ``annotations``."""
        with self.read(COCO_KEY) as payload:
            return decode_json(payload)

    def to_coco(self) -> dict:
        """The whole annotation file, images in its order, annotations grouped by image."""
        content = self.coco_fields()
        content['images'], content['annotations'] = [], []
        for image_id in self.index.ids.tolist():
            image, annotations = self.annotations(image_id)
            content['images'].append(image)
            content['annotations'].extend(annotations)
        return content

    def keys(self) -> Iterator[bytes]:
        """All keys of the database, in order."""
        with self._open().begin() as transaction:
            yield from transaction.cursor().iternext(keys=True, values=False)

    def _open(self) -> lmdb.Environment:
        if self._pid != os.getpid():
            with _opening:
                environment = _open_environment(self.path)
                self._meta = self._checked_meta(environment)
                self._environment, self._index = environment, None
                self._pid = os.getpid()
        return self._environment

    def _checked_meta(self, environment: lmdb.Environment) -> dict:
        with environment.begin(buffers=True) as transaction:
            value = transaction.get(META_KEY)
            if value is None:
                raise BpuError(f'{self.path} is an LMDB database without a packed COCO data set, '
                               f"or packing stopped before its end (no 'meta' record); {PACK_HINT}")
            try:
                meta = decode_json(decode_record(META_KEY, value))
            except ValueError as error:
                raise BpuError(f"{self.path}: the 'meta' record is not one of a packed COCO data "
                               f'set ({error}); {PACK_HINT}') from None
        if not isinstance(meta, dict) or meta.get('format') != FORMAT:
            raise BpuError(f"{self.path} does not hold format '{FORMAT}'; {PACK_HINT}")
        if meta['version'] > SCHEMA_VERSION:
            raise BpuError(
                f"{self.path} has schema version {meta['version']}, this mmdet_bpu reads up to "
                f'{SCHEMA_VERSION}: update mmdet_bpu or pack the data set again')
        found = environment.stat()['entries']
        if self.strict and found != meta['counts']['records']:
            raise BpuError(f"{self.path} should hold {meta['counts']['records']} records, found "
                           f'{found}: it is damaged; {VERIFY_HINT} {self.path}')
        return meta


def _open_environment(path: str) -> lmdb.Environment:
    data_file = os.path.join(path, DATA_FILE)
    try:
        status = os.stat(data_file)
    except OSError as error:
        what = f'no {DATA_FILE} in it' if os.path.isdir(path) else error.strerror
        raise BpuError(f'no packed COCO data set at {path} ({what}); {PACK_HINT}') from None
    identity = (os.getpid(), status.st_dev, status.st_ino)
    environment = _environments.get(identity)
    if environment is None:
        try:
            environment = lmdb.open(path, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise BpuError(f'{path} cannot be opened as an LMDB database ({error}); if it is '
                           f'yours to replace, {PACK_HINT}') from None
        _environments[identity] = environment
    expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if status.st_size < expected:
        # Reading a page that the file does not have would end the process with SIGBUS.
        raise BpuError(f'{data_file} is truncated: {expected} bytes expected, {status.st_size} '
                       'found; copy or pack it again')
    return environment
