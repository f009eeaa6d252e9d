"""Where a database is written until it is complete: claimed, resumed, and moved into place."""
import fcntl
import json
import os
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

from mmdet_bpu.datasets.lmdb_format import DATA_FILE
from mmdet_bpu.errors import BpuError

PLAN_FILE = 'packing.json'  # what is being packed: resuming goes on only with the same


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse a target that exists, unless it is a database and to be replaced.

    Raises:
        BpuError: If so.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise BpuError(f'{out} exists; choose another name, or replace it with parameter '
                       'overwrite=True')
    # Replacing deletes: only ever a folder that holds a database and nothing else.
    if not out.is_dir() or out.is_symlink() or not all(map(_is_ours, os.listdir(out))):
        raise BpuError(f'{out} is not an LMDB database (a folder of {DATA_FILE} alone): it is not '
                       'overwritten; choose another name')


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the right to write ``out``; the operating system takes it back if the process dies.

    Raises:
        BpuError: If another process holds it.
    """
    path = out.with_name(f'.{out.name}.lock')
    with ExitStack() as held:
        while True:
            file = held.enter_context(open(path, 'a'))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            except BlockingIOError:
                raise BpuError(f'another process is packing {out}; wait for it or stop it') from None
            except FileNotFoundError:
                pass
            # Another packer ended between the two lines, and took the name with it: once more.
            held.pop_all().close()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def recover_replaced(out: Path) -> None:
    """After a death between the two renames the earlier database still has its other name.

    ``out`` must be claimed.
    """
    replaced = _replaced(out)
    if replaced.is_dir() and all(map(_is_ours, os.listdir(replaced))):
        if out.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(out)


def partial_folder(out: Path, plan: dict, resume: bool, overwrite: bool) -> Path:
    """The folder to write into, beside ``out``: new, or the one of an interrupted packing.

    Args:
        out (Path): The target; claimed.
        plan (dict): JSON content that says what is packed.
        resume (bool): Go on with an interrupted packing, if there is one.
        overwrite (bool): Discard an interrupted packing that is not resumed.

    Returns:
        Path: ``<out>.partial``.

    Raises:
        BpuError: If there is an interrupted packing and neither is allowed, it is of other input,
            or something else has its name.
    """
    partial = out.with_name(f'{out.name}.partial')
    earlier = _read_plan(partial)
    if earlier is not None and resume:
        changed = [name for name in plan if plan[name] != earlier.get(name)]
        if changed:
            differences = '; '.join(
                f'{name} was {earlier.get(name)!r}, is {plan[name]!r}' for name in changed)
            raise BpuError(f'cannot resume {partial}, it was begun from other input ({differences})'
                           ': give the same, or start over with parameter overwrite=True')
        return partial
    if earlier is not None and not overwrite:
        raise BpuError(f'{partial} is an interrupted packing: go on with parameter resume=True, or '
                       'start over with parameter overwrite=True')
    if os.path.lexists(partial):
        if not partial.is_dir() or partial.is_symlink() or not all(map(_is_ours,
                                                                      os.listdir(partial))):
            raise BpuError(f'{partial} is in the way and no interrupted packing; remove it')
        if not overwrite and any(partial.glob('*.mdb')):
            raise BpuError(f'{partial} is in the way: it holds data, but no {PLAN_FILE} that says '
                           'of what; move it away, or discard it with parameter '
                           'overwrite=True')
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    draft = partial / f'{PLAN_FILE}.new'
    with open(draft, 'w', encoding='utf-8') as file:
        json.dump(plan, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(partial / PLAN_FILE)
    return partial


def move_into_place(partial: Path, out: Path) -> None:
    """Give a complete database its name, and remove the one that it replaces."""
    replaced = _replaced(out)
    _sync_folder(partial)
    if out.exists():
        out.rename(replaced)
        try:
            partial.rename(out)
        except OSError:
            replaced.rename(out)
            raise
        _sync_folder(out.parent)
        shutil.rmtree(replaced)
    else:
        partial.rename(out)
    (out / PLAN_FILE).unlink()
    _sync_folder(out.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replaced(out: Path) -> Path:
    return out.with_name(f'.{out.name}.replaced')


def _read_plan(partial: Path) -> dict | None:
    try:
        plan = json.loads((partial / PLAN_FILE).read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return plan if isinstance(plan, dict) else None


def _is_ours(name: str) -> bool:
    return (name in (DATA_FILE, 'lock.mdb', PLAN_FILE, f'{PLAN_FILE}.new')
            or (name.startswith('images-') and name.endswith('.mdb')))
