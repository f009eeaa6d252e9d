"""Storage backend of mmengine: the files of a packed COCO data set where mmdet looks for them.

    backend_args = dict(backend='coco_lmdb', lmdb='train_lmdb')

With it, a data set or transform that loads images by path reads them out of the database.
"""
import errno
import json
import os
import os.path as osp
import posixpath
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from mmengine.fileio import LocalBackend, register_backend

from mmdet_bpu.datasets.lmdb_format import encode_json, json_key
from mmdet_bpu.datasets.lmdb_store import CocoStore, open_store
from mmdet_bpu.errors import BpuError

NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

BACKEND_NAME = 'coco_lmdb'
ANY_FOLDER = '.'  # what normpath makes of ''


class PackedFileNotFoundError(BpuError, FileNotFoundError):
    """A path that is neither in a packed data set nor on the disk."""


# Forced, so that a module imported again under another name or reloaded does not stop the run.
@register_backend(BACKEND_NAME, force=True)
class CocoLMDBBackend(LocalBackend):
    """The local disk, with the images of a packed data set at the paths where they would be.

    A path is an image of the database if its end is a ``file_name`` there; of several such ends the
    longest counts. So ``data/coco/train2017/deep/c.jpg`` is ``deep/c.jpg`` if there is one, else
    ``c.jpg``. Nothing of the path before it has to exist. ``.``, ``..``, repeated and backward
    slashes are understood.

    A path with the base name of the packed annotation file is that file, rebuilt from the database,
    unless it exists on the disk. Every other path is a local one, for reading and writing.

    Holds no more than paths: it can be sent to other processes and used by several threads, and
    its memory does not depend on the number of images.

    Args:
        lmdb (str | Path): Folder of the database, relative to the working folder. In
            ``backend_args`` a str, because mmengine writes these as JSON.
        img_dir (str): Folder (or the last components of its path) that the images are looked for
            in, where a ``file_name`` might also be the name of another file: with
            ``img_dir='train2017'``, ``masks/a.png`` is a local file, whatever the images are
            called. Defaults to '': in any folder.

    Raises:
        BpuError: At the first use, if the database cannot be used.
    """

    def __init__(self, lmdb: str | Path, img_dir: str = '') -> None:
        self.lmdb = osp.abspath(lmdb)
        self.img_dir = posixpath.normpath(_forward_slashes(img_dir))

    def get(self, filepath: str | Path) -> bytes:
        """Bytes of a file.

        Raises:
            PackedFileNotFoundError: If it is neither in the database nor on the disk.
            BpuError: If its record is damaged.
        """
        packed = self._packed(filepath)
        if packed is not None:
            return b''.join(packed)
        with self._naming_the_missing(filepath):
            return super().get(filepath)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Text of a file; raises as :meth:`get`."""
        packed = self._packed(filepath)
        if packed is not None:
            return b''.join(packed).decode(encoding)
        with self._naming_the_missing(filepath):
            return super().get_text(filepath, encoding)

    def exists(self, filepath: str | Path) -> bool:
        """Whether there is such a file or folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is such a file."""
        return (self._image_id(filepath) is not None or self._is_annotation_file(filepath)
                or super().isfile(filepath))

    def isdir(self, filepath: str | Path) -> bool:
        """Whether there is such a folder, on the disk or (see :meth:`list_dir_or_file`) packed."""
        return self._packed_folder(filepath) is not None or super().isdir(filepath)

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str | Path]:
        """A file on the disk: the path itself, or a copy out of the database.

        Yields:
            str | Path: The path. A copy has the same base name and is removed after the block.

        Raises:
            PackedFileNotFoundError: If it is neither in the database nor on the disk.
            BpuError: If its record is damaged or the copy cannot be written.
        """
        packed = self._packed(filepath)
        if packed is None:
            if not osp.exists(filepath):
                raise self._not_found(filepath)
            yield filepath
            return
        with temporary_copy(filepath, packed, self.lmdb) as copy:
            yield copy

    def list_dir_or_file(self, dir_path: str | Path, list_dir: bool = True,
                         list_file: bool = True,
                         suffix: str | tuple[str, ...] | None = None,
                         recursive: bool = False) -> Iterator[str]:
        """Folders and files in a folder, relative to it, in no particular order.

        A folder is one of the database if its path ends in ``img_dir`` (without it: in the name of
        the folder that was packed) or goes on from there with folders of a ``file_name``. Listing
        it reads every image's description.

        Args:
            dir_path (str | Path): The folder.
            list_dir (bool): Give folders. Defaults to True.
            list_file (bool): Give files. Defaults to True.
            suffix (str | tuple[str], optional): Only files that end in it. Defaults to None: all.
            recursive (bool): Go into the folders below. Defaults to False.

        Returns:
            Iterator[str]: The relative paths.

        Raises:
            PackedFileNotFoundError: If it is a folder neither of the database nor of the disk.
            TypeError: If both ``list_dir`` and ``suffix`` are given.
        """
        local = super().list_dir_or_file(dir_path, list_dir, list_file, suffix, recursive)
        folder = self._packed_folder(dir_path)
        if folder is not None:
            return self._list_packed(folder, list_dir, list_file, suffix, recursive)
        if not super().isdir(dir_path):
            raise self._not_found(dir_path)
        return local

    @property
    def _store(self) -> CocoStore:
        return open_store(self.lmdb)

    def _packed(self, filepath: str | Path) -> Iterable[bytes] | None:
        """Content of a file of the database in pieces, None if it is not there."""
        image_id = self._image_id(filepath)
        if image_id is not None:
            with self._store.image(image_id) as content:
                return [bytes(content)]
        if self._is_annotation_file(filepath):
            # A data set is being built: the database may have been packed anew since the last one.
            return _annotation_file(open_store(self.lmdb, fresh=True))
        return None

    def _image_id(self, filepath: str | Path) -> int | None:
        path, slashed = os.fspath(filepath), _forward_slashes(filepath)
        if slashed.endswith('/'):
            return None
        # On POSIX a file may have a backslash in its name, and a file_name may not be normal.
        forms = dict.fromkeys((posixpath.normpath(path), posixpath.normpath(slashed), path))
        return self._store.image_id_of(
            *(rest for form in forms for rest in _rests(form, self.img_dir) if rest))

    def _is_annotation_file(self, filepath: str | Path) -> bool:
        name = posixpath.basename(_forward_slashes(filepath))
        return name == self._store.meta['source']['annotation_file'] and not osp.exists(filepath)

    def _packed_folder(self, path: str | Path) -> str | None:
        """The folder of the database that a path names, '' for the packed one, None for neither."""
        images = self.img_dir
        if images == ANY_FOLDER:
            images = self._store.meta['source']['image_folder']
        for rest in _rests(posixpath.normpath(_forward_slashes(path)), images):
            if not rest or any(name.startswith(f'{rest}/') for name in _file_names(self._store)):
                return rest
        return None

    def _list_packed(self, folder: str, list_dir: bool, list_file: bool,
                     suffix: str | tuple[str, ...] | None, recursive: bool) -> Iterator[str]:
        start = f'{folder}/' if folder else ''
        folders: dict[str, None] = {}
        for name in _file_names(self._store):
            if not name.startswith(start):
                continue
            name = name[len(start):]
            *parents, base = name.split('/')
            for depth in range(1, (len(parents) if recursive else min(len(parents), 1)) + 1):
                folders['/'.join(parents[:depth])] = None
            asked = list_file and (recursive or not parents)
            # LocalBackend lists no hidden files either.
            if asked and not base.startswith('.') and (suffix is None or name.endswith(suffix)):
                yield name
        if list_dir:
            yield from folders

    @contextmanager
    def _naming_the_missing(self, path: str | Path) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # ValueError: of a name that no file can have, such as 'a\0b'; also of a text's encoding.
            if getattr(error, 'errno', None) in NO_SUCH_FILE or '\0' in str(path):
                raise self._not_found(path) from None
            raise

    def _not_found(self, path: str | Path) -> PackedFileNotFoundError:
        source = self._store.meta['source']
        where = '' if self.img_dir == ANY_FOLDER else f", looked for in '{self.img_dir}'"
        return PackedFileNotFoundError(
            f"'{path}' is neither on the disk nor in {self.lmdb} (the images of "
            f"'{source['image_folder']}' under their file_name{where}, and "
            f"{source['annotation_file']}); check data_root, data_prefix and ann_file, and that "
            'backend_args names the right database')


@contextmanager
def temporary_copy(path: str | Path, content: Iterable[bytes], lmdb: str) -> Iterator[str]:
    """A file of the same base name on the disk, removed after the block.

    Args:
        path (str | Path): Whose name it gets.
        content (Iterable[bytes]): Its bytes, in pieces.
        lmdb (str): The database that they are of, for the message.

    Raises:
        BpuError: If it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f'{BACKEND_NAME}_') as folder:
        copy = osp.join(folder, posixpath.basename(_forward_slashes(path)))
        try:
            with open(copy, 'wb') as file:
                file.writelines(content)
        except OSError as error:
            raise BpuError(f'cannot write {copy}, copied out of {lmdb}: {error.strerror}; '
                           'make room, or name another folder by TMPDIR') from None
        yield copy


def _forward_slashes(path: str | Path) -> str:
    return os.fspath(path).replace('\\', '/')


def _rests(path: str, folder: str) -> Iterator[str]:
    """What follows ``folder`` in a path, or any folder for '.'; the longest first."""
    parts = path.split('/')
    for count in range(len(parts) + 1):
        if folder == ANY_FOLDER or f"/{'/'.join(parts[:count])}".endswith(f'/{folder}'):
            yield '/'.join(parts[count:])


def _file_names(store: CocoStore) -> Iterator[str]:
    for image, _, _ in _descriptions(store):
        yield image['file_name']


def _annotation_file(store: CocoStore) -> Iterator[bytes]:
    """The annotation file in pieces, with the lists that ``CocoStore.to_coco`` gives."""
    images = []
    yield b'{"annotations":['
    separator = ''
    for _, image, annotations in _descriptions(store):
        images.append(image)
        if annotations:
            yield f'{separator}{annotations}'.encode()
            separator = ','
    yield f'],"images":[{",".join(images)}]'.encode()
    for name, content in store.coco_fields().items():
        yield b',' + encode_json(name) + b':' + encode_json(content)
    yield b'}'


def _descriptions(store: CocoStore) -> Iterator[tuple[dict, str, str]]:
    """Each image's entry, read and as text, and its annotations as text without brackets.

    Text, because reading and writing JSON of all annotations takes ten times as long as copying.
    """
    before, between, after = '{"image":', ',"annotations":[', ']}'
    read = json.JSONDecoder().raw_decode
    for image_id in store.read_index().ids.tolist():
        image, annotations = store.annotations(image_id)
        with store.read(json_key(image_id)) as payload:
            text = str(payload, 'utf-8')
        _, end = read(text, len(before)) if text.startswith(before) else (None, 0)
        if text.startswith(between, end) and text.endswith(after):
            yield image, text[len(before):end], text[end + len(between):-len(after)]
        else:  # the same in another spelling
            yield (image, str(encode_json(image), 'utf-8'),
                   str(encode_json(annotations), 'utf-8')[1:-1])
