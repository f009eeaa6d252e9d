"""Checkpoints whole or not at all, whichever hook saves them.

mmengine's hook removes the old checkpoint, writes the new one in place, then its name. A process
that is killed in between has lost its training. Here a file is written beside, synced and renamed,
and an old one goes only after the new one stands under its name:

* the runner saves so, for every hook that calls it;
* a checkpoint hook, the stock one or a subclass of it, puts off what it removes until its callback
  has come to its end.
"""
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Union

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import FileClient, LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import (FULL_DISK, PARTIAL, atomic_file, partial_name, reported,
                                     sync)

MARK = 'checkpoint-'
ADVICE = ('nothing that was saved before is lost: make room, then repeat the command with '
          'parameter resume=True')
OUTDATED = 'outdated_checkpoints'
"""Message hub: names that go once the checkpoint that holds this list stands."""


class WholeCheckpointRunner(Runner):
    """mmengine's runner; its checkpoints are complete, or not there."""

    def register_hook(self, hook: Union[Hook, Dict], priority: Any = None) -> None:
        """As in mmengine; what saves checkpoints removes old ones after that, not before."""
        super().register_hook(hook, priority)
        for registered in self.hooks:
            if isinstance(registered, CheckpointHook) \
                    and not isinstance(registered, _KeepsUntilReplaced):
                registered.__class__ = _keeping(type(registered))

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: Optional[dict] = None,
                        *args, backend_args: Optional[dict] = None, **kwargs) -> None:
        """As in mmengine, in a folder on a disk: written beside, synced and renamed.

        Raises:
            BpuError: It cannot be written, or the disk is full.
        """

        def save(folder: str, name: str) -> None:
            super(WholeCheckpointRunner, self).save_checkpoint(
                folder, name, file_client_args, *args, backend_args=backend_args, **kwargs)

        if not _is_local(out_dir, file_client_args, backend_args):
            save(out_dir, filename)
            return
        path = Path(out_dir, filename)
        with reported(str(path), advice=ADVICE):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, MARK, ADVICE) as partial:
            save(str(partial.parent), partial.name)


@contextmanager
def full_disk_reported(folder: str) -> Iterator[None]:
    """Whatever a run writes in ``folder``, logs too: a full disk is told in one sentence.

    Raises:
        BpuError: The disk is full.
    """
    # For each line of a log that cannot be written, logging would print a traceback of its own.
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise BpuError(f'{error.filename or folder} cannot be written ({error.strerror}); {ADVICE}'
                       ) from error
    finally:
        logging.raiseExceptions = raising


def _is_local(out_dir: str, file_client_args: Optional[dict], backend_args: Optional[dict]) -> bool:
    if file_client_args is None:
        backend = get_file_backend(out_dir, backend_args=backend_args)
    else:
        backend = FileClient.infer_client(file_client_args, out_dir).client
    return isinstance(backend, LocalBackend)


@lru_cache(maxsize=None)
def _keeping(hook_class: type) -> type:
    return type(hook_class.__name__, (_KeepsUntilReplaced, hook_class),
                dict(__module__=hook_class.__module__, __doc__=hook_class.__doc__))


class _Removal(NamedTuple):
    remove: Callable[[str], None]
    path: str
    inode: int


class _PutsOffRemovals:
    """A file backend whose removals are listed, not done.

    Args:
        backend (BaseStorageBackend): What it stands for.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.removals: List[_Removal] = []

    def remove(self, path: str) -> None:
        """List a file."""
        self.removals.append(_Removal(self.backend.remove, str(path), _inode(path)))

    def rmtree(self, path: str) -> None:
        """List a folder."""
        self.removals.append(_Removal(self.backend.rmtree, str(path), _inode(path)))

    def __getattr__(self, name: str) -> Any:
        if name == 'backend':  # not there yet, while it is being copied
            raise AttributeError(name)
        return getattr(self.backend, name)


class _KeepsUntilReplaced:
    """What is put before the class of a checkpoint hook."""

    def before_train(self, runner) -> None:
        """Clear away what a killed run left: incomplete files, and replaced ones."""
        super().before_train(runner)
        hub = runner.message_hub
        last = hub.get_info('last_ckpt')
        if self.last_ckpt is None and last is not None and self.file_backend.isfile(last):
            self.last_ckpt = last  # else a resumed run would not save again what it validates
        if is_main_process() and isinstance(self.file_backend, LocalBackend):
            for folder in {Path(self.out_dir), Path(runner.work_dir)}:
                _remove_partial(folder)
            for name in hub.get_info(OUTDATED) or ():
                with suppress(OSError):
                    Path(self.out_dir, Path(name).name).unlink()
        self.file_backend = _PutsOffRemovals(self.file_backend)

    def after_train_epoch(self, runner) -> None:
        """As the hook does, then remove what was replaced."""
        super().after_train_epoch(runner)
        self._remove_replaced(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        """As the hook does, then remove what was replaced."""
        super().after_train_iter(runner, *args, **kwargs)
        self._remove_replaced(runner)

    def after_val_epoch(self, runner, *args, **kwargs) -> None:
        """As the hook does, then remove what was replaced."""
        super().after_val_epoch(runner, *args, **kwargs)
        self._remove_replaced(runner)

    def _save_checkpoint_with_step(self, runner, step: int, meta: Dict[str, Any]) -> None:
        """As mmengine's; the file that names the checkpoint is written beside as well."""
        if not is_main_process():
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        work_dir = Path(runner.work_dir)
        staging = partial_name(work_dir, MARK)
        try:
            with reported(str(work_dir), work_dir, ADVICE):
                staging.mkdir(parents=True)
                super()._save_checkpoint_with_step(
                    _OtherFolder(runner, str(staging), self._listed_names()), step, meta)
                for file in staging.iterdir():
                    sync(file)
                    os.replace(file, work_dir / file.name)
                sync(work_dir)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _listed_names(self) -> Callable[[], List[str]]:
        return lambda: [Path(removal.path).name for removal in self.file_backend.removals]

    def _remove_replaced(self, runner) -> None:
        backend = getattr(self, 'file_backend', None)
        if not isinstance(backend, _PutsOffRemovals):  # a validation outside training
            return
        removals, backend.removals = backend.removals, []
        for removal in removals:
            # One that was written again meanwhile is another file.
            if _inode(removal.path) == removal.inode:
                with suppress(FileNotFoundError):
                    removal.remove(removal.path)


class _OtherFolder:
    """A runner as a hook sees it that is to write somewhere else."""

    def __init__(self, runner: Any, work_dir: str, outdated: Callable[[], List[str]]) -> None:
        self._runner, self.work_dir, self._outdated = runner, work_dir, outdated

    def save_checkpoint(self, *args, **kwargs) -> None:
        """As the runner's; the checkpoint says which files it replaces."""
        self._runner.message_hub.update_info(OUTDATED, self._outdated())
        self._runner.save_checkpoint(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:  # no local file
        return 0


def _remove_partial(folder: Path) -> None:
    for path in folder.glob(f'{PARTIAL}{MARK}*'):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
