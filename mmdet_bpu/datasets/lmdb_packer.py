"""Pack a COCO data set (a folder of images and an annotation file) into an LMDB database."""
import errno
import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

import lmdb

from mmdet_bpu.datasets.coco_annotations import note_unusual
from mmdet_bpu.datasets.coco_source import CocoSource
from mmdet_bpu.choices import CHECKS, ON_ERROR
from mmdet_bpu.datasets.image_check import ImageFault, check_image
from mmdet_bpu.datasets.image_index import index_records
from mmdet_bpu.datasets.image_readers import ImageRead, ImageReaders, ImageRequest
from mmdet_bpu.datasets.lmdb_format import (CHECKSUM_BYTES, COCO_KEY, DATA_FILE, FORMAT,
                                            IMAGE_PREFIX, INDEX_SHA256_KEY, INSTANCES_PREFIX,
                                            JSON_PREFIX, MAX_SHARDS, META_KEY, SCHEMA_VERSION,
                                            SHARD_FORMAT, decode_record, encode_json, image_files,
                                            image_key, instances_key, json_key, shard_of)
from mmdet_bpu.datasets.lmdb_target import (check_target, claimed, move_into_place,
                                           partial_folder, recover_replaced)
from mmdet_bpu.datasets.lmdb_writer import RecordWriter
from mmdet_bpu.datasets.packing_report import first_names
from mmdet_bpu.datasets.sample_record import encode_sample
from mmdet_bpu.errors import BpuError
from mmdet_bpu.steps import progress_bar

# What LMDB reports of a file whose pages are not what it wrote.
DAMAGE = (lmdb.CorruptedError, lmdb.CursorFullError, lmdb.InvalidError, lmdb.PageNotFoundError,
          lmdb.VersionMismatchError)
# What check_image finds unusual, in the words of the report.
NOTICES = {
    'not JPEG': 'image is not JPEG, stored as it is',
    'size differs': 'image has another size than the annotation file says',
    'sides exchanged': 'image has, as training sees it, the width that the annotation file has as '
                       'height (does it know of the Exif orientation?)',
}


def pack_coco(img_dir: str | Path,
              ann_file: str | Path | None,
              out_dir: str | Path,
              overwrite: bool = False,
              progress: bool = False,
              *,
              resume: bool = False,
              check_images: str = 'header',
              on_error: str = 'stop',
              subset: int | None = None,
              shards: int = 1,
              processes: int | None = None) -> dict:
    """Pack images and annotations into the database ``out_dir``.

    Written beside it as ``<out_dir>.partial`` and renamed when complete: under its own name the
    database is whole or absent. The same input gives the same records, resumed or not.

    Args:
        img_dir (str | Path): Folder that the ``file_name`` fields of the annotation file refer to.
        ann_file (str | Path, optional): COCO detection annotations, JSON; None for pictures that nobody
            has annotated, all of ``img_dir`` at any depth.
        out_dir (str | Path): Folder to create.
        overwrite (bool): Replace an earlier database; without ``resume`` also discard an
            interrupted packing. Defaults to False.
        progress (bool): Show a progress bar on stderr. Defaults to False.
        resume (bool): Go on with an interrupted packing of the same input, if there is one. What it
            has is checked first. Defaults to False.
        check_images (str): ``'decode'``, ``'header'`` (and that the file is not cut off) or
            ``'none'``. Defaults to 'header'.
        on_error (str): ``'stop'``, or ``'skip'``: leave out images that are missing, unreadable or
            not images, and annotations that point at no image. Defaults to 'stop'.
        subset (int, optional): Only the first so many images of the file. Defaults to None: all.
        shards (int): Number of files to spread the images over. Defaults to 1.
        processes (int, optional): Number of reader processes. Defaults to one for each core, at
            most 4.

    Returns:
        dict: The ``meta`` record: format, version, counts, source, and in ``report`` what was left
        out or is unusual.

    Raises:
        BpuError: If an argument is out of range, the target exists, the annotation file is
            unreadable or inconsistent, images are missing or not images, or the disk refuses. An
            earlier database stays as it was.
    """
    _check_arguments(check_images, on_error, shards, processes)
    out = Path(os.path.abspath(out_dir))
    check_target(out, overwrite)
    # The readers first: they are forks, and should hold neither the annotations nor the claim.
    with ImageReaders(check_images, processes) as readers, _disk_errors(out):
        source = _source(ann_file, img_dir, subset, on_error == 'skip')
        out.parent.mkdir(parents=True, exist_ok=True)
        with claimed(out):
            recover_replaced(out)
            # Again: another packer may have been done since, and what this one begins would block.
            check_target(out, overwrite)
            plan = dict(source.description(), img_dir=os.path.abspath(img_dir), shards=shards,
                        version=SCHEMA_VERSION)
            partial = partial_folder(out, plan, resume, overwrite)
            begun = any(partial.glob('*.mdb'))  # by an earlier run
            packing = _Packing(partial, source, readers, check_images, on_error, shards)
            try:
                meta = packing.run(progress)
            except BaseException:
                if not packing.sha256 and not begun:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            check_target(out, overwrite)
            move_into_place(partial, out)
    return meta


def _source(ann_file: str | Path | None, img_dir: str | Path, *options) -> CocoSource:
    if ann_file is None:
        return CocoSource.of_pictures(img_dir, *options)
    return CocoSource.read(ann_file, img_dir, *options)


@dataclass
class _Packing:
    """One run of the packer over a partial folder."""
    folder: Path
    source: CocoSource
    readers: ImageReaders
    check_images: str
    on_error: str
    shards: int
    sha256: dict[int, bytes] = field(default_factory=dict)
    notices: dict[int, list[str]] = field(default_factory=dict)
    image_bytes: int = 0

    def run(self, progress: bool) -> dict:
        images = sorted(self.source.kept_images(), key=lambda image: image['id'])
        with progress_bar('packing', len(images), progress) as advance:
            if self.shards > 1:
                self._write_shards(images, advance)
            with RecordWriter(self.folder / DATA_FILE) as writer:
                writer.put(COCO_KEY, encode_json(self.source.fields))
                if self.shards == 1:
                    self._write_images(writer, images, advance)
                meta = self._write_descriptions(writer)
        return meta

    def _write_shards(self, images: list[dict], advance: Callable[[int], None]) -> None:
        parts: list[list[dict]] = [[] for _ in range(self.shards)]
        for image in images:
            parts[shard_of(image_key(image['id']), self.shards)].append(image)
        for number, name in enumerate(image_files(self.shards)):
            with RecordWriter(self.folder / name) as writer:
                bytes_before = self.image_bytes
                written = self._write_images(writer, parts[number], advance)
                meta = dict(
                    format=SHARD_FORMAT, version=SCHEMA_VERSION, shard=number, shards=self.shards,
                    counts=dict(images=written, image_bytes=self.image_bytes - bytes_before,
                                records=written + 1),
                    source=self.source.description())
                writer.put(META_KEY, encode_json(meta))
                writer.finish()

    def _write_images(self, writer: RecordWriter, images: list[dict],
                      advance: Callable[[int], None]) -> int:
        """Write what is not there yet; returns the number of images then in the file."""
        self._take_stored(writer, images, advance)
        requests = (ImageRequest(image['id'], self.source.image_path(image), image['width'],
                                 image['height'])
                    for image in images if image['id'] not in self.sha256)
        by_id = {image['id']: image for image in images}
        for batch in self.readers.read(requests):
            faulty = [read for read in batch if read.fault is not None]
            if faulty and self.on_error == 'stop':
                # What this batch has is kept too.
                self._put(writer, batch, by_id)
                raise BpuError(self._fault_message(faulty))
            for read in faulty:
                self.source.leave_out(by_id[read.request.image_id], read.fault)
            self._put(writer, batch, by_id)
            advance(len(batch))
        return sum(image['id'] in self.sha256 for image in images)

    def _put(self, writer: RecordWriter, batch: list[ImageRead], by_id: dict) -> None:
        for read in batch:
            if read.fault is None:
                writer.put_record(image_key(read.request.image_id), read.value)
                self._count(by_id[read.request.image_id], read.sha256,
                            len(read.value) - CHECKSUM_BYTES, read.notices)

    def _count(self, image: dict, sha256: bytes, size: int, notices: list[str]) -> None:
        self.sha256[image['id']] = sha256
        self.image_bytes += size
        if notices:
            self.notices[image['id']] = notices

    def _take_stored(self, writer: RecordWriter, images: list[dict],
                     advance: Callable[[int], None]) -> None:
        """Count the images that an interrupted packing wrote; drop those that are damaged."""
        by_key = {image_key(image['id']): image for image in images}
        useless = []
        for key, value in writer.stored(IMAGE_PREFIX):
            image = by_key.get(key)
            if image is None or not self._is_usable(key, value, image):
                useless.append(key)
            else:
                advance(1)
        writer.delete(useless)

    def _is_usable(self, key: bytes, value: memoryview, image: dict) -> bool:
        try:
            content = decode_record(key, value)
            notices = check_image(content, self.check_images, image['width'], image['height'])
        except (BpuError, ImageFault):
            return False
        self._count(image, hashlib.sha256(content).digest(), len(content), notices)
        return True

    def _write_descriptions(self, writer: RecordWriter) -> dict:
        images = self.source.kept_images()
        annotations = self.source.annotations
        note_unusual(self.source.report, images, annotations, self.source.fields['categories'])
        kept = {*map(instances_key, annotations), *map(json_key, annotations)}
        writer.delete([key for prefix in (INSTANCES_PREFIX, JSON_PREFIX)
                       for key, _ in writer.stored(prefix) if key not in kept])
        index = index_records(images, annotations, self.source.fields['categories'], self.sha256)
        for key, payload in index.items():
            writer.put(key, payload)
        images = sorted(images, key=lambda image: image['id'])
        for image in images:
            for notice in self.notices.get(image['id'], ()):
                self.source.report.notice(NOTICES[notice], image['file_name'])
            writer.put(instances_key(image['id']),
                       encode_sample(image, annotations[image['id']]))
        for image in images:
            writer.put(json_key(image['id']),
                       encode_json(dict(image=image, annotations=annotations[image['id']])))
        records = writer.count_without(META_KEY) + 1
        meta = dict(format=FORMAT, version=SCHEMA_VERSION, shards=self.shards,
                    counts=dict(self.source.counts(), image_bytes=self.image_bytes,
                                records=records),
                    source=self.source.description(),
                    images_sha256=hashlib.sha256(index[INDEX_SHA256_KEY]).hexdigest(),
                    report=self.source.report.content())
        writer.put(META_KEY, encode_json(meta))
        writer.finish()
        return meta

    def _fault_message(self, faulty: list[ImageRead]) -> str:
        named = first_names(f'{read.request.path} {read.fault}' for read in faulty)
        advice = 'Replace ' + ('it' if len(faulty) == 1 else 'them')
        advice += ", or leave out such images with parameter on_error='skip'"
        if self.sha256:
            advice += (f', and go on with parameter resume=True: {self.folder} keeps the '
                       f'{len(self.sha256)} images packed so far')
        return f'{named}. {advice}'


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    partial = out.with_name(f'{out.name}.partial')
    try:
        yield
    except DAMAGE as error:
        raise BpuError(f'{partial} is damaged, LMDB reports {error}: start over with '
                       'parameter overwrite=True') from error
    except (OSError, lmdb.Error) as error:
        kept = (f'; {partial} keeps what was packed so far: go on with parameter resume=True'
                if partial.is_dir() else '')
        cause = str(error)
        if cause.endswith(os.strerror(errno.EIO)):
            # LMDB's word for a write of which the disk took a part only.
            free = shutil.disk_usage(out.parent).free / 1e6
            cause += f' (the disk is full, over a quota or faulty: {free:.1f} MB are free)'
        raise BpuError(f'cannot write {out}: {cause}{kept}') from error


def _check_arguments(check_images: str, on_error: str, shards: int,
                     processes: int | None) -> None:
    for name, value, allowed in (('check_images', check_images, CHECKS),
                                 ('on_error', on_error, ON_ERROR)):
        if value not in allowed:
            raise BpuError(f'parameter {name}: expected one of {", ".join(allowed)}, found '
                           f'{value!r}')
    if not 1 <= shards <= MAX_SHARDS:
        raise BpuError(f'parameter shards: expected 1 to {MAX_SHARDS}, found {shards}')
    if processes is not None and processes < 1:
        raise BpuError(f'parameter processes: expected 1 or more, found {processes}')
