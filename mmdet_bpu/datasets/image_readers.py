"""Read and check image files in several processes; the records arrive in shared memory.

Each process fills an arena with whole records (payload and checksum) of one batch while the writer
takes those of another: nothing but file names, offsets and hashes goes through a pipe.
"""
import hashlib
import mmap
import multiprocessing
import os
import signal
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple

import cv2

from mmdet_bpu.datasets.image_check import ImageFault, check_image
from mmdet_bpu.datasets.lmdb_format import (CHECKSUM_BYTES, checksum, encode_record, image_key)
from mmdet_bpu.datasets.shielded_process import start_shielded
from mmdet_bpu.errors import BpuError

BATCH_IMAGES = 32
ARENAS = 2  # of each process: one is filled while the other is written
ARENA_BYTES = 1 << 24  # 32 COCO images have 5 MB; what does not fit goes through the pipe
MAX_PROCESSES = 4  # one writer cannot take more


class ImageRequest(NamedTuple):
    """An image file to read, and what the annotation file says of it (px)."""
    image_id: int
    path: Path
    width: int
    height: int


class ImageRead(NamedTuple):
    """What became of a request.

    Attributes:
        request (ImageRequest): The request.
        value (memoryview | bytes | None): The record to store; None if the image cannot be used.
            Valid until the next batch is asked for.
        sha256 (bytes): Of the file.
        fault (str | None): Why it cannot be used, in words that follow its name.
        notices (list[str]): What is unusual but usable.
    """
    request: ImageRequest
    value: memoryview | bytes | None
    sha256: bytes = b''
    fault: str | None = None
    notices: list[str] = []


def default_processes() -> int:
    """As many as there are cores for this process, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return min(cores or 1, MAX_PROCESSES)


class ImageReaders:
    """Processes that read image files ahead of the writer.

    Start them before anything large is loaded or locked: they are forks. They end when this process
    does, however it ends. Use as a context manager.

    Args:
        check (str): See :func:`mmdet_bpu.datasets.image_check.check_image`.
        processes (int, optional): How many. Defaults to one for each core, at most 4.
    """

    def __init__(self, check: str, processes: int | None = None) -> None:
        context = multiprocessing.get_context('fork')
        count = processes or default_processes()
        pipes = [context.Pipe() for _ in range(count)]
        self._connections = [ours for ours, _ in pipes]
        self._arenas = [[mmap.mmap(-1, ARENA_BYTES) for _ in range(ARENAS)] for _ in pipes]
        self._processes = []
        for number, (_, theirs) in enumerate(pipes):
            # A copy of another end, left open, would keep its process from seeing our end.
            others = [end for pipe in pipes for end in pipe if end is not theirs]
            process = context.Process(
                target=_serve, args=(theirs, others, self._arenas[number], check), daemon=True)
            start_shielded(process)
            self._processes.append(process)
        for _, theirs in pipes:
            theirs.close()

    def __enter__(self) -> 'ImageReaders':
        return self

    def __exit__(self, *_) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join()

    def read(self, requests: Iterable[ImageRequest]) -> Iterator[list[ImageRead]]:
        """Read in order.

        Args:
            requests (Iterable[ImageRequest]): What to read.

        Yields:
            list[ImageRead]: The next batch, in the order of the requests. Its values are gone when
            the batch after it is asked for.

        Raises:
            BpuError: If a process dies; the message names the files that it had.
        """
        requests = iter(requests)
        slots = [(process, arena) for arena in range(ARENAS)
                 for process in range(len(self._processes))]
        pending: list[tuple[int, int, list[ImageRequest]]] = []
        for slot in slots:
            self._ask(pending, slot, requests)
        while pending:
            process, arena, batch = pending.pop(0)
            yield list(self._receive(process, arena, batch))
            self._ask(pending, (process, arena), requests)

    def _ask(self, pending: list, slot: tuple[int, int], requests: Iterator) -> None:
        process, arena = slot
        batch = list(islice(requests, BATCH_IMAGES))
        if batch:
            with self._alive(process, batch):
                self._connections[process].send((arena, batch))
            pending.append((process, arena, batch))

    def _receive(self, process: int, arena: int,
                 batch: list[ImageRequest]) -> Iterator[ImageRead]:
        with self._alive(process, batch):
            answers = self._connections[process].recv()
        view = memoryview(self._arenas[process][arena])
        for request, (place, sha256, fault, notices) in zip(batch, answers):
            value = view[slice(*place)] if isinstance(place, tuple) else place
            yield ImageRead(request, value, sha256, fault, notices)

    @contextmanager
    def _alive(self, process: int, batch: list[ImageRequest]) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):  # OSError: it died within an answer
            self._processes[process].join()
            code = self._processes[process].exitcode
            end = signal.Signals(-code).name if code < 0 else f'exit code {code}'
            raise BpuError(
                f'a reader process was ended by {end} at one of {len(batch)} images from '
                f'{batch[0].path} to {batch[-1].path}; try parameter '
                "check_images='none', which does not decode them") from None


def _serve(connection: Connection, others: list[Connection], arenas: list[mmap.mmap],
           check: str) -> None:
    """Body of a reader process: batches in, places and hashes out, until the pipe closes."""
    cv2.setNumThreads(0)  # threads do not come along in a fork
    for other in others:
        other.close()
    while True:
        try:
            arena, batch = connection.recv()
            connection.send(_read_batch(batch, memoryview(arenas[arena]), check))
        except (EOFError, ConnectionError):
            return


def _read_batch(batch: list[ImageRequest], arena: memoryview, check: str) -> list[tuple]:
    answers, start = [], 0
    for request in batch:
        place, sha256, fault, notices = None, b'', None, []
        try:
            content = _read_file(request.path, arena[start:])
            notices = check_image(content, check, request.width, request.height)
            key = image_key(request.image_id)
            sha256 = hashlib.sha256(content).digest()
            if isinstance(content, memoryview):
                end = start + len(content)
                arena[end:end + CHECKSUM_BYTES] = checksum(key, content)
                place = (start, end + CHECKSUM_BYTES)
                start = end + CHECKSUM_BYTES
            else:
                place = encode_record(key, content)
        except OSError as error:
            fault = f'cannot be read ({error.strerror})'
        except ImageFault as error:
            fault = str(error)
        answers.append((place, sha256, fault, notices))
    return answers


def _read_file(path: Path, space: memoryview) -> memoryview | bytes:
    """The file in ``space`` if it fits with its checksum, else as an object of its own."""
    with open(path, 'rb', buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size + CHECKSUM_BYTES > len(space):
            return file.read()
        content, filled = space[:size], 0
        while filled < size:
            count = file.readinto(content[filled:])
            if not count:
                break
            filled += count
        return content[:filled]
