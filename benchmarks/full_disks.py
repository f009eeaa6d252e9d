"""Disks that are full for one writer of a training.

Where a tmpfs may be mounted the run's folder is one with little room. Elsewhere the largest file
that the run may write is limited (RLIMIT_FSIZE), which the system reports in much the same way.
"""
import contextlib
import random
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

from kill_process import Ended

PAGE = 4096  # bytes, what a tmpfs is counted in

WRITERS: Dict[str, Callable[[int, random.Random], int]] = {
    'settings and logs': lambda checkpoint, rng: rng.randint(1, 3) * PAGE,
    'first checkpoint': lambda checkpoint, rng: rng.randint(checkpoint // 4, checkpoint),
    'next checkpoint': lambda checkpoint, rng: rng.randint(checkpoint * 5 // 4, checkpoint * 15 // 8),
}
"""Writer -> function (bytes of a checkpoint, rng) -> bytes of room that are too few for it."""


@contextlib.contextmanager
def disk(folder: Path, room: int) -> Iterator[Optional[int]]:
    """A folder with ``room`` bytes; afterwards it has what it had then, and all the room.

    Yields:
        int | None: Largest file that may be written, where the folder could not be limited.
    """
    folder.mkdir()
    size = -(-room // PAGE) * PAGE
    mounted = shutil.which('mount') is not None and subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder],
        capture_output=True).returncode == 0
    if not mounted:
        yield size
        return
    try:
        yield None
        kept = folder.with_name(f'{folder.name}.kept')
        subprocess.run(['cp', '-a', folder, kept], check=True)
    finally:
        subprocess.run(['umount', folder], check=True)
    folder.rmdir()
    kept.rename(folder)


def said_so(ended: Ended) -> bool:
    """Whether a command ended with exit code 2 and one sentence about the disk."""
    told = [line for line in ended.errors.splitlines() if line.startswith('error: ')]
    return ended.code == 2 and len(told) == 1 and 'cannot be written' in told[0] \
        and 'Traceback' not in ended.errors
