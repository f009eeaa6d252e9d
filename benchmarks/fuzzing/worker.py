"""Cases run in a process of their own: what they raise, how long they take and what memory.

The worker is a fork of the process that prepared the kind, so that it costs no import. It tells of
each case before it starts and when it has ended, one JSON object a line; if it dies in between,
the parent knows on which case.
"""
import faulthandler
import json
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Callable, Iterator

from mmdet_bpu.errors import BpuError

GIB = 1 << 30
BEYOND_BYTES = GIB  # of memory beyond the stated budget
ANSWERS = ('equal', 'different')


def case_seed(seed: int, kind: str, index: int) -> random.Random:
    """Random numbers of one case, whatever ran before it."""
    return random.Random(f'{seed}/{kind}/{index}')


def start(kind, seed: int, indices: list[int]) -> tuple[int, int]:
    """Fork a worker for some cases.

    Returns:
        tuple[int, int]: Its process id, and the descriptor from which its lines are read.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    status = 1
    try:
        os.close(reading)
        _work(kind, seed, indices, writing)
        status = 0
    finally:
        os._exit(status)


def _work(kind, seed: int, indices: list[int], writing: int) -> None:
    faulthandler.disable()  # a crash is counted, not printed
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    if 'torch' in sys.modules:
        sys.modules['torch'].set_num_threads(1)  # the threads of the parent are not here
    budget = getattr(kind, 'budget_bytes', 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What is reserved and never touched does not show in the resident size: let it fail.
    reserved = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    limit = reserved + budget + 2 * BEYOND_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for index in indices:
        _tell(writing, dict(start=index))
        _tell(writing, dict(_one(kind, case_seed(seed, kind.name, index), budget), end=index))


def _one(kind, rng: random.Random, budget: int) -> dict:
    before = _restart_peak()
    started = time.monotonic()
    note, memory = '', False
    case = kind.case(rng)
    try:
        outcome = kind.run(case)
        if outcome not in ANSWERS:
            outcome, note = 'uncaught', f'run() answered {outcome!r}, expected one of {ANSWERS}'
    except BpuError as error:
        outcome, note = 'refused', str(error)
    except MemoryError as error:
        outcome, note, memory = 'uncaught', _place(error), True
    except BaseException as error:  # whatever it is, it is what the campaign looks for
        outcome, note = 'uncaught', _place(error)
        memory = 'allocate' in str(error)
    memory = memory or _peak() - before > budget + BEYOND_BYTES
    return dict(outcome=outcome, seconds=time.monotonic() - started, memory=memory,
                case=case.description, note=note[:2000])


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if 'mmdet_bpu' in frame.filename] or list(frames)
    where = f'{Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours else '?'
    text = str(error).encode('ascii', 'backslashreplace').decode()
    return f'{type(error).__name__} at {where}: {text[:500]}'


def _restart_peak() -> int:
    """Bytes resident now; the peak of the kernel's books starts from here."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pass  # the peak of earlier cases stays: only more than that is seen
    return _peak()


def _peak() -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tell(writing: int, message: dict) -> None:
    data = json.dumps(message).encode() + b'\n'
    while data:
        data = data[os.write(writing, data):]


def messages(reading: int, patience: Callable[[], float]) -> Iterator[dict | None]:
    """Lines of a worker until it ends; None where it says nothing for ``patience`` seconds."""
    rest = b''
    while True:
        ready, _, _ = select.select([reading], [], [], patience())
        if not ready:
            yield None
            continue
        data = os.read(reading, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b'\n')
        yield from map(json.loads, lines)


def stop(process: int) -> None:
    """End a worker that does not end."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        print(f'worker {process} had ended', file=sys.stderr)
