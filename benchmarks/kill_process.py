"""Commands in forks of this process, and how they are killed.

A fork sees what its command does to files under a folder before it is done (Python's audit events),
so it can be killed at a chosen one: before a checkpoint is opened, in the middle of its bytes,
before it is renamed, before the one that it replaces is removed.
"""
import importlib
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, List, NamedTuple, Optional

SHARED = ('mmdet_bpu.apis.training', 'mmdet_bpu.engine.runner', 'mmdet_bpu.registration',
          'torch._dynamo', 'torch.onnx', 'matplotlib.backends.backend_agg')
"""What takes most of the time of a short training is imported once, before it is forked."""
CHANGES = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir')
"""Audit events that change names in a folder; ``open`` only where it writes."""
POINTER = 'last_checkpoint'  # written when a checkpoint has been


class Kill(NamedTuple):
    """How a command is killed.

    Attributes:
        after (float, optional): Seconds.
        change (int, optional): At this change to the folder, counted from 1, before it is done.
        writing (int, optional): With ``change``, where that opens a file: once this many bytes of
            it have been written.
    """
    after: Optional[float] = None
    change: Optional[int] = None
    writing: Optional[int] = None


class Limit(NamedTuple):
    """How large the files may be that a command writes, as if the disk were full.

    Attributes:
        bytes (int): Largest file.
        saved (int): From when on: once it has saved so many checkpoints.
    """
    bytes: int
    saved: int = 0


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code (int): Exit code; negative for a signal.
        seconds (float): Wall time.
        changes (list[str]): Changes that it made to the folder, as ``event name``.
        saved (int): Checkpoints that it had saved.
        errors (str): What it wrote on stderr.
    """
    code: int
    seconds: float
    changes: List[str]
    saved: int
    errors: str


def import_shared() -> None:
    """Import what every fork would."""
    for name in SHARED:
        importlib.import_module(name)


def run(argv: List[str], folder: Path, kill: Kill = Kill(),
        limit: Optional[Limit] = None) -> Ended:
    """Run a tool to its end, or until it is killed.

    Args:
        argv (list[str]): Path of the tool, and its arguments.
        folder (Path): Where changes count.
        kill (Kill): When it is killed. Defaults to not at all.
        limit (Limit, optional): Of the files that it writes. Defaults to none.
    """
    log = folder.with_name(f'{folder.name}.changes')
    errors = folder.with_name(f'{folder.name}.stderr')
    started = time.monotonic()
    process = multiprocessing.get_context('fork').Process(
        target=_become, args=(argv, folder, kill, limit, log, errors))
    process.start()
    process.join(kill.after)
    process.kill()  # nothing to do if it has ended
    process.join()
    changes = log.read_text(encoding='utf-8').splitlines()
    return Ended(process.exitcode, time.monotonic() - started, changes,
                 sum(line.endswith(f' {POINTER}') and line.startswith('open') for line in changes),
                 errors.read_text(encoding='utf-8', errors='replace'))


def _become(argv: List[str], folder: Path, kill: Kill, limit: Optional[Limit], log: Path,
            errors: Path) -> None:
    out = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = (open(stream, 'w', buffering=1, closefd=False) for stream in (1, 2))
    changes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    sys.addaudithook(_Watch(folder, kill, changes, limit))
    if limit is not None and not limit.saved:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit.bytes, limit.bytes))
    # mmengine formats its config's text for every checkpoint, which takes longer than these runs.
    import mmengine.config.config
    mmengine.config.config.FormatCode = lambda text, **_: (text, True)
    sys.argv = argv
    code = 0
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


class _Watch:
    """Audit hook that writes down changes to a folder, and kills at one."""

    def __init__(self, folder: Path, kill: Kill, log: int, limit: Optional[Limit]) -> None:
        self.folder, self.kill, self.log, self.count = f'{folder}{os.sep}', kill, log, 0
        self.limit, self.saved = limit, 0

    def __call__(self, event: str, arguments: Any) -> None:
        if event not in CHANGES or not _writes(event, arguments):
            return
        path = arguments[1] if event == 'os.rename' else arguments[0]
        if not isinstance(path, (str, os.PathLike)):
            return
        path = os.path.abspath(path)
        # Logs and settings are no state; all that has to do with checkpoints is.
        if not path.startswith(self.folder) or not ('.pth' in path or 'checkpoint' in path
                                                    or 'last_' in path):
            return
        self.count += 1
        if self.count == self.kill.change:
            if self.kill.writing is None or event != 'open':
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.kill.writing, self.kill.writing))
            return
        os.write(self.log, f'{event} {os.path.basename(path)}\n'.encode())
        if self.limit is not None and self.limit.saved and event == 'open':
            if self.saved == self.limit.saved:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit.bytes, self.limit.bytes))
            self.saved += os.path.basename(path) == POINTER


def _writes(event: str, arguments: Any) -> bool:
    if event != 'open':
        return True
    _, mode, flags = arguments
    return any(letter in mode for letter in 'wax+') if isinstance(mode, str) else \
        bool(flags & (os.O_WRONLY | os.O_RDWR))
