"""Write the records of an LMDB file in batches of transactions, and go on where one stopped."""
import mmap
from pathlib import Path
from typing import Iterator

import lmdb

from mmdet_bpu.datasets.lmdb_environment import NotWholeError, open_environment
from mmdet_bpu.datasets.lmdb_format import encode_record

FIRST_MAP_SIZE = 1 << 26  # bytes; grows as needed, the file is only as large as what is written
BATCH_BYTES = 1 << 24  # of one transaction: what a killed packer loses at most
PAGE_SLACK = 3 * 4096  # of a record: page header, rounding up, its share of the tree


class RecordWriter:
    """Puts records into one LMDB file. They should come in key order: then each is an append.

    Every batch is on the disk before the next is begun (``fdatasync``), so that a file cut off at
    any moment, by SIGKILL or by power, holds whole batches. The map grows before a batch needs it.
    Leaving the block by an exception keeps what was put, if the disk takes it.

    Args:
        file (Path): The LMDB file; made if it is not there or cut off.

    Raises:
        lmdb.Error: If pages of the file are damaged or the disk refuses.
        BpuError: If a file that is there cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        _remove_if_cut_off(file)
        # Nobody else opens the file before it has its name: no lock file.
        self._environment = lmdb.open(str(file), subdir=False, lock=False, metasync=False,
                                      map_size=FIRST_MAP_SIZE)
        self._transaction: lmdb.Transaction | None = None
        self._room = 0
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            self._last_key = cursor.key() if cursor.last() else b''

    def __enter__(self) -> 'RecordWriter':
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None or not issubclass(kind, (lmdb.Error, OSError)):
                self._commit()
        finally:
            if self._transaction is not None:
                self._transaction.abort()
            self._environment.close()

    def count_without(self, key: bytes) -> int:
        """Number of records in the file, those of the running batch included, but for one key."""
        self._commit()
        with self._environment.begin() as transaction:
            return transaction.stat()['entries'] - (transaction.get(key) is not None)

    def put(self, key: bytes, payload: bytes) -> None:
        """Add a record; its checksum is added here."""
        self.put_record(key, encode_record(key, payload))

    def put_record(self, key: bytes, value) -> None:
        """Add a record that has its checksum, from any buffer; it is copied at once."""
        size = len(value) + len(key) + PAGE_SLACK
        if self._transaction is None or size > self._room:
            self._commit()
            self._begin(size)
        if key > self._last_key:
            self._transaction.put(key, value, append=True)
            self._last_key = key
        else:
            self._transaction.put(key, value)
        self._room -= size

    def stored(self, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """The records whose key begins with ``prefix``; a value is valid until the next."""
        self._commit()
        with self._environment.begin(buffers=True) as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not bytes(key).startswith(prefix):
                        return
                    yield bytes(key), value

    def delete(self, keys: list[bytes]) -> None:
        """Remove records."""
        self._commit()
        if keys:
            self._begin(len(keys) * PAGE_SLACK)
            for key in keys:
                self._transaction.delete(key)
            self._commit()

    def finish(self) -> None:
        """Write what is left and wait until the disk has it."""
        self._commit()
        self._environment.sync(True)

    def _begin(self, first_size: int) -> None:
        info = self._environment.info()
        used = (info['last_pgno'] + 1) * self._environment.stat()['psize']
        # Twice, because a transaction writes changed pages of the tree anew.
        self._room = max(BATCH_BYTES, first_size)
        needed = used + 2 * self._room + FIRST_MAP_SIZE // 4
        size = info['map_size']
        if needed > size:
            self._environment.set_mapsize(max(needed, 2 * size))
        self._transaction = self._environment.begin(write=True)

    def _commit(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.commit()


def _remove_if_cut_off(file: Path) -> None:
    """Begin a file anew that ends before its last page, or within its header on a full disk."""
    if not file.exists():
        return
    try:
        whole = file.stat().st_size >= 2 * mmap.PAGESIZE  # LMDB's header
        if whole:
            open_environment(str(file))
    except NotWholeError:
        whole = False
    if not whole:
        file.unlink()
