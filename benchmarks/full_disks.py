"""Disks that are full for one writer of a training.

Where a tmpfs may be mounted the run's folder is one with little room. Elsewhere the largest file
that the run may write is limited (RLIMIT_FSIZE), which the system reports in much the same way.
"""
import contextlib
import random
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple, Optional

from kill_process import Ended, Limit

PAGE = 4096  # bytes, what a tmpfs is counted in


class Writer(NamedTuple):
    """What finds too little room.

    Attributes:
        saved (int): Checkpoints that were saved before, and are there.
        room (Callable): Function (bytes of a checkpoint, rng) -> bytes that are too few for it.
    """
    saved: int
    room: Callable[[int, random.Random], int]


WRITERS: Dict[str, Writer] = {
    'settings and logs': Writer(0, lambda checkpoint, rng: rng.randint(1, 3) * PAGE),
    'first checkpoint': Writer(0, lambda checkpoint, rng: rng.randint(checkpoint // 4, checkpoint)),
    'next checkpoint': Writer(
        1, lambda checkpoint, rng: rng.randint(checkpoint // 4, checkpoint * 7 // 8)),
}


@contextlib.contextmanager
def disk(folder: Path, writer: Writer, checkpoint: int,
         rng: random.Random) -> Iterator[Optional[Limit]]:
    """A folder with too little room; afterwards it has what it had then, and all the room.

    Args:
        folder (Path): Is made.
        writer (Writer): For whom there is too little.
        checkpoint (int): Bytes of one.
        rng (random.Random): How little there is.

    Yields:
        Limit | None: Of the files that may be written, where the folder could not be limited.
    """
    folder.mkdir()
    room = -(-writer.room(checkpoint, rng) // PAGE) * PAGE
    size = writer.saved * -(-checkpoint // PAGE) * PAGE + room
    mounted = shutil.which('mount') is not None and subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder],
        capture_output=True).returncode == 0
    if not mounted:
        yield Limit(room, writer.saved)
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
