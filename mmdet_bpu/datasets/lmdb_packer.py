"""Pack a COCO data set (a folder of images and an annotation file) into one LMDB database."""
import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import lmdb
from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task,
                           TextColumn, TimeRemainingColumn)
from rich.text import Text

from mmdet_bpu.datasets.coco_source import CocoSource, read_image
from mmdet_bpu.datasets.lmdb_format import (COCO_KEY, DATA_FILE, FORMAT, META_KEY,
                                            SCHEMA_VERSION, annotation_key, encode_json,
                                            encode_record, image_key)
from mmdet_bpu.errors import BpuError

FIRST_MAP_SIZE = 1 << 26  # bytes; grows as needed, the file is only as large as what is written
BATCH_BYTES = 1 << 26  # of one transaction
DATABASE_FILES = {DATA_FILE, 'lock.mdb'}


def pack_coco(img_dir: str | Path,
              ann_file: str | Path,
              out_dir: str | Path,
              overwrite: bool = False,
              progress: bool = False) -> dict:
    """Pack images and annotations into the database ``out_dir``.

    Written beside it as ``<out_dir>.partial`` and renamed when complete: under its own name the
    database is whole or absent. The same input gives the same records.

    Args:
        img_dir (str | Path): Folder that the ``file_name`` fields of the annotation file refer to.
        ann_file (str | Path): COCO detection annotations, JSON.
        out_dir (str | Path): Folder to create.
        overwrite (bool): Replace an earlier database. Defaults to False.
        progress (bool): Show a progress bar on stderr. Defaults to False.

    Returns:
        dict: The ``meta`` record: format, version, counts, source.

    Raises:
        BpuError: If the target exists, the annotation file is unreadable or inconsistent, images
            are missing or not images, or the disk refuses. An earlier database stays as it was.
    """
    out = Path(os.path.abspath(out_dir))
    _check_target(out, overwrite)
    source = CocoSource.read(ann_file, img_dir)
    partial = out.with_name(f'{out.name}.partial')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(out), _removed_afterwards(partial):
            meta = _write(partial, source, progress)
            _check_target(out, overwrite)
            _move_into_place(partial, out)
    except (OSError, lmdb.Error) as error:
        raise BpuError(f'cannot write {out}: {error}') from error
    return meta


def _write(folder: Path, source: CocoSource, progress: bool) -> dict:
    images = sorted(source.images, key=lambda image: image['id'])
    counts = dict(source.counts(), image_bytes=0)
    with _Writer(folder) as writer:
        for image in images:
            annotations = source.annotations[image['id']]
            writer.put(annotation_key(image['id']),
                       encode_json(dict(image=image, annotations=annotations)))
        writer.put(COCO_KEY, encode_json(source.fields))
        for image in _with_progress_bar(images, progress):
            content = read_image(source.image_path(image))
            counts['image_bytes'] += len(content)
            writer.put(image_key(image['id']), content)
        for key, payload in source.index().to_records().items():
            writer.put(key, payload)
        meta = dict(format=FORMAT, version=SCHEMA_VERSION,
                    counts=dict(counts, records=writer.written + 1), source=source.description())
        writer.put(META_KEY, encode_json(meta))
        writer.finish()
    return meta


class _Writer:
    """Appends records, which come in key order, in batches; enlarges the map when it is full."""

    def __init__(self, folder: Path) -> None:
        # Nobody else opens the folder before it is renamed: no lock file, one sync at the end.
        self._environment = lmdb.open(str(folder), map_size=FIRST_MAP_SIZE, lock=False, sync=False)
        self._batch: list[tuple[bytes, bytes]] = []
        self._batch_bytes = 0
        self.written = 0

    def __enter__(self) -> '_Writer':
        return self

    def __exit__(self, *_) -> None:
        self._environment.close()

    def put(self, key: bytes, payload: bytes) -> None:
        """Add a record; its checksum is added here."""
        self._batch.append((key, encode_record(key, payload)))
        self._batch_bytes += len(payload)
        self.written += 1
        if self._batch_bytes >= BATCH_BYTES:
            self._write_batch()

    def finish(self) -> None:
        """Write what is left and wait until the disk has it."""
        self._write_batch()
        self._environment.sync(True)

    def _write_batch(self) -> None:
        written = False
        while not written:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value, append=True)
                written = True
            except lmdb.MapFullError:
                size = self._environment.info()['map_size']
                self._environment.set_mapsize(size + max(size, 2 * self._batch_bytes))
        self._batch.clear()
        self._batch_bytes = 0


def _check_target(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise BpuError(f'{out} exists; choose another name, or replace it with --overwrite')
    # Replacing deletes: only ever a folder that holds a database and nothing else.
    if not out.is_dir() or out.is_symlink() or not set(os.listdir(out)) <= DATABASE_FILES:
        raise BpuError(f'{out} is not an LMDB database (a folder of {DATA_FILE} alone): it is not '
                       'overwritten; choose another name')


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Hold the right to write ``out``; the operating system takes it back if the process dies."""
    path = out.with_name(f'.{out.name}.lock')
    with open(path, 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            still_there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            still_there = False
        if not still_there:
            raise BpuError(f'another process is packing {out}; wait for it or stop it')
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def _removed_afterwards(partial: Path) -> Iterator[None]:
    """Start from no ``partial`` folder (a killed packer leaves one) and leave none."""
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, out: Path) -> None:
    replaced = out.with_name(f'{out.name}.replaced')
    if not out.exists():
        partial.rename(out)
    else:
        out.rename(replaced)
        try:
            partial.rename(out)
        except OSError:
            replaced.rename(out)
            raise
        shutil.rmtree(replaced)
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _RateColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text('' if rate is None else f'{rate:.0f} images/s')


def _with_progress_bar(images: list[dict], shown: bool) -> Iterator[dict]:
    columns = (TextColumn('packing'), BarColumn(), MofNCompleteColumn(), _RateColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        yield from bar.track(images)
