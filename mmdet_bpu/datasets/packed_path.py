"""Paths of packed images, and the local storage of mmengine that can open them.

What stock mmdet opens by ``img_path`` (drawing hooks, analysis tools) it opens through mmengine's
``fileio``, by the backend of paths without a scheme. Importing this module makes that one
:class:`LocalBackendWithPackedImages`: the local disk, but for a :class:`PackedPath`.
"""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances

from mmdet_bpu.datasets.lmdb_backend import temporary_copy
from mmdet_bpu.datasets.lmdb_store import open_store


class PackedPath(str):
    """``img_path`` of a sample: the text that ``CocoDataset`` has, and where the image is.

    Equal to that text in every way; copied, pickled or taken through ``str()`` it keeps the rest.
    Joined, cut or made a :class:`pathlib.Path` it is text alone.

    Args:
        path (str): The path, which need not exist.
        lmdb (str): Folder of the database.
        image_id (int): Id of the image there.
    """

    def __new__(cls, path: str, lmdb: str, image_id: int) -> 'PackedPath':
        made = super().__new__(cls, path)
        made.lmdb, made.image_id = lmdb, image_id
        return made

    def __str__(self) -> str:
        return self  # mmengine calls it on its way to the backend

    def __reduce__(self) -> tuple:
        return type(self), (self[:], self.lmdb, self.image_id)

    def content(self) -> bytes:
        """The image file.

        Raises:
            BpuError: If the database cannot be used or its record is damaged.
        """
        with open_store(self.lmdb).image(self.image_id) as content:
            return bytes(content)


# Forced, because mmengine has one of that name: it does the same with every other path.
@register_backend('local', force=True, prefixes='')
class LocalBackendWithPackedImages(LocalBackend):
    """The local disk, with an image of a database under every :class:`PackedPath`."""

    def get(self, filepath: str | Path) -> bytes:
        """Bytes of a file; raises as :meth:`PackedPath.content` for a packed image."""
        return filepath.content() if isinstance(filepath, PackedPath) else super().get(filepath)

    def exists(self, filepath: str | Path) -> bool:
        """Whether there is such a file or folder."""
        return isinstance(filepath, PackedPath) or super().exists(filepath)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is such a file."""
        return isinstance(filepath, PackedPath) or super().isfile(filepath)

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str | Path]:
        """A file on the disk: the path itself, or a copy of a packed image for the block."""
        if isinstance(filepath, PackedPath):
            with temporary_copy(filepath, [filepath.content()], filepath.lmdb) as copy:
                yield copy
        else:
            with super().get_local_path(filepath) as local:
                yield local


for _key, _instance in list(backend_instances.items()):
    if type(_instance) is LocalBackend:  # made before this module was imported
        del backend_instances[_key]
