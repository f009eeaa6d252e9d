"""Write files so that only complete ones, and only complete sets of them, have their names.

Whatever is written stands beside its place first, is synced to the disk, and is renamed.
"""
import contextlib
import errno
import functools
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Union

from mmdet_bpu.errors import BpuError

PARTIAL = '.partial-'  # start of the name of what is not complete
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_file(path: Union[str, Path], mark: str = '', advice: str = '') -> Iterator[Path]:
    """A name to write a file under; the file is ``path`` when the block ends without an error.

    Args:
        path (str | Path): The file.
        mark (str): Part of the name meanwhile, by which a later process knows what a killed one
            left. Defaults to none.
        advice (str): What the user should do if it cannot be written. Defaults to none.

    Raises:
        BpuError: The folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # what a link leads to, not the link, is replaced
    _refuse_special(path, str(path))
    partial = partial_name(path.parent, mark)
    try:
        with reported(str(path), partial, advice):
            yield partial
        with reported(str(path), advice=advice):
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomically(path: Union[str, Path], data: bytes) -> None:
    """Write a file so that under its name there is only ever a complete one.

    Raises:
        BpuError: The folder does not exist or cannot be written.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(data)


def write_json(path: Union[str, Path], content: Any) -> None:
    """Write JSON for people; the folder is made if needed.

    Raises:
        BpuError: It cannot be written.
    """
    path = Path(path)
    require_file(path, str(path))
    with reported(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + '\n').encode())


@contextlib.contextmanager
def staged_folder(out_dir: Union[str, Path]) -> Iterator[Path]:
    """A temporary folder whose content is in ``out_dir`` when the block ends without an error.

    A folder that did not exist appears as a whole, by one rename. Into one that exists the files
    are moved, and files that have other names stay; where a move fails, those that were made are
    taken back. So after an error, whether in the block or at its end, ``out_dir`` is as it was.
    (Only a process that is killed during the moves leaves some of them done; the files that they
    replaced are then in a folder ``.partial-*`` inside.)

    Args:
        out_dir (str | Path): Folder to write; made if needed.

    Raises:
        BpuError: ``out_dir`` is a file or cannot be written, or the disk is full. Other errors of
            the block are raised as they are.
    """
    out = Path(out_dir)
    require_folder(out)
    existed = out.exists()
    made = [] if existed else _missing(out.parent)
    staging = partial_name(out if existed else out.parent)
    what = f'parameter out_dir: {out}'
    done = False
    try:
        with reported(what):
            (staging / 'new').mkdir(parents=True)
        with reported(what, staging):
            yield staging / 'new'
        with reported(what):
            _sync_tree(staging / 'new')
            if existed:
                _move_into(staging / 'new', out, staging / 'old')
            else:
                os.rename(staging / 'new', out)
                sync(out.parent)
        done = True
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not done:
            _remove_empty(made)


def require_folder(path: Union[str, Path], what: str = 'parameter out_dir') -> None:
    """Find out whether a folder can be written, before what shall be in it is computed.

    Args:
        path (str | Path): It need not exist, nor those above it; nothing is left of the attempt.
        what (str): What to call it in the message.

    Raises:
        BpuError: It, or one above it, is no folder or cannot be written.
    """
    path = Path(path)
    with reported(f'{what}: {path}'):
        _refuse_broken_link(path, what)
        nearest = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)),
                       Path('.'))
        if not nearest.is_dir():
            raise BpuError(f'{what}: expected a folder, found the file {nearest}')
        _try_to_write(nearest)


def require_file(path: Union[str, Path], what: str = 'parameter out') -> None:
    """Find out whether a file can be written, before what shall be in it is computed.

    Args:
        path (str | Path): What is there is left as it is; the folder of it need not exist.
        what (str): What to call it in the message.

    Raises:
        BpuError: A folder, a device or a pipe is there, or its folder cannot be written.
    """
    path = Path(path)
    with reported(f'{what}: {path}'):
        _refuse_broken_link(path, what)
        if path.is_dir():
            raise BpuError(f'{what}: expected a file or nothing, found the folder {path}')
        _refuse_special(path, what)
    require_folder(path.parent, what)


def _refuse_broken_link(path: Path, what: str) -> None:
    """Nobody means a link whose end is not there, or a circle of links."""
    if path.is_symlink() and not path.exists():
        raise BpuError(f'{what}: expected what can be written, found the link {path}, which leads '
                       f'to nothing ({os.readlink(path)}); remove it')


def _refuse_special(path: Path, what: str) -> None:
    """A rename would put a file in the place of a device or a pipe."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise BpuError(f'{what}: expected a file or nothing, found a device or a pipe at {path}')


def _try_to_write(folder: Path) -> None:
    partial = partial_name(folder)
    try:
        partial.write_bytes(b'\n')
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _move_into(new: Path, out: Path, old: Path) -> None:
    """Move all files of ``new`` to ``out``, or none; replaced ones go to ``old`` meanwhile."""
    names = sorted(path.relative_to(new) for path in new.rglob('*') if path.is_file())
    folders = [out / name for name in names if (out / name).is_dir()]
    if folders:
        raise BpuError(f'parameter out_dir: expected a file or nothing at {folders[0]}, found a '
                       'folder; remove it, or write to another one')
    undo: List[Callable] = []
    try:
        for name in names:
            target = out / name
            for folder in reversed(_missing(target.parent)):
                folder.mkdir()
                undo.append(folder.rmdir)
            if target.exists() or target.is_symlink():
                _rename(target, old / name, undo)
            _rename(new / name, target, undo)
        for folder in sorted({(out / name).parent for name in names}):
            sync(folder)
    except BaseException:
        _take_back(undo, old)
        raise


def _rename(source: Path, target: Path, undo: List[Callable]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    undo.append(functools.partial(os.replace, target, source))


def _take_back(undo: List[Callable], old: Path) -> None:
    """Undo moves, the last one first.

    Raises:
        BpuError: One of them cannot be undone; the message says where the earlier files are.
    """
    try:
        for step in reversed(undo):
            step()
    except OSError as error:
        kept = old.parent.with_name(f'earlier-files-{secrets.token_hex(4)}')
        os.rename(old.parent, kept)
        raise BpuError(f'parameter out_dir: writing failed, and then {error.filename} could not be '
                       f'moved back ({error.strerror}); earlier files are in {kept / old.name}'
                       ) from error


def partial_name(folder: Path, mark: str = '') -> Path:
    """A name in ``folder`` for what is not complete."""
    return folder / f'{PARTIAL}{mark}{secrets.token_hex(4)}'


def _missing(folder: Path) -> List[Path]:
    """``folder`` and those above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: List[Path]) -> None:
    """Remove folders that were made for nothing, the innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob('*'), folder):
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reported(what: str, about: Optional[Path] = None, advice: str = '') -> Iterator[None]:
    """An OSError becomes a BpuError; with ``about``, one of a path below it or of a full disk."""
    try:
        yield
    except OSError as error:
        if about is not None and error.errno not in FULL_DISK \
                and not str(error.filename or '').startswith(str(about)):
            raise
        raise BpuError(f'{what} cannot be written ({error.strerror or error})'
                       + (f'; {advice}' if advice else '')) from error
