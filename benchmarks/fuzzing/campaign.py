"""Run cases of a kind and count what became of them.

=============  =====================================================================
count          of the cases
=============  =====================================================================
tried          all of them; each was stopped or is one of the next five
refused        a BpuError was raised
equal          accepted, with the output that it should have
different      accepted, with another output
uncaught       another exception was raised
crashed        the process died
slow           took over 10 s, or had to be stopped
memory         took over 1 GiB beyond the stated budget
=============  =====================================================================
"""
import importlib
import importlib.util
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from fuzzing import worker

FOLDER = Path(__file__).parent
SLOW_SECONDS = 10
STOP_SECONDS = 2 * SLOW_SECONDS  # a case that has not ended by then is stopped
BATCH = 500  # cases of one worker
FAULTS_KEPT = 20
OUTCOMES = ('refused', 'equal', 'different', 'uncaught', 'crashed')
FAULTS = ('different', 'uncaught', 'slow', 'memory', 'crashed')
"""Counts that should be 0."""


@dataclass
class Tally:
    """Counts of one kind; see the module docstring.

    Attributes:
        faults (list[str]): The first cases that are counted among :data:`FAULTS`, in words.
    """
    tried: int = 0
    refused: int = 0
    equal: int = 0
    different: int = 0
    uncaught: int = 0
    slow: int = 0
    memory: int = 0
    crashed: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, index: int, outcome: str, seconds: float, memory: bool, case: str,
            note: str, slow_seconds: float) -> None:
        """Count one case."""
        slow = seconds > slow_seconds
        self.tried += 1
        if outcome in OUTCOMES:
            setattr(self, outcome, getattr(self, outcome) + 1)
        self.slow += slow
        self.memory += memory
        words = [outcome] * (outcome in FAULTS) + ['slow'] * slow + ['memory'] * memory
        if words and len(self.faults) < FAULTS_KEPT:
            self.faults.append(f'case {index}, {" and ".join(words)}: {case}: {note}')

    def counts(self) -> dict[str, int]:
        """The counts alone."""
        return {name: value for name, value in vars(self).items() if name != 'faults'}


def kind_names(folder: Path = FOLDER) -> list[str]:
    """Names of the kinds of a folder: files that give a class their own name. Imports nothing."""
    return sorted(path.stem for path in folder.glob('*.py')
                  if f"\n    name = '{path.stem}'\n" in path.read_text())


def load_kind(name: str, folder: Path = FOLDER):
    """An unprepared kind.

    Raises:
        AssertionError: Its file has no class of that name, or several.
    """
    if folder == FOLDER:
        module = importlib.import_module(f'fuzzing.{name}')
    else:
        spec = importlib.util.spec_from_file_location(name, folder / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    classes = [value for value in vars(module).values()
               if isinstance(value, type) and vars(value).get('name') == name]
    assert len(classes) == 1, f'{name}: {len(classes)} classes of that name'
    return classes[0]()


def run_kind(kind, cases: int, seed: int, first: int = 0, slow_seconds: float = SLOW_SECONDS,
             stop_seconds: float = STOP_SECONDS,
             progress: Callable[[int], None] = lambda done: None) -> Tally:
    """Prepare a kind and run its cases.

    Args:
        kind: See :class:`fuzzing.case.Kind`.
        cases (int): How many.
        seed (int): Of the campaign; case ``index`` is the same in every campaign of that seed.
        first (int): Index of the first case. Defaults to 0.
        slow_seconds (float): Longer is slow. Defaults to 10 s.
        stop_seconds (float): Longer is not waited for. Defaults to 20 s.
        progress (Callable): Called with the number of cases done.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        kind.prepare(Path(folder))
        left = list(range(first, first + cases))
        while left:
            done = _batch(kind, seed, left[:BATCH], tally, slow_seconds, stop_seconds)
            left = left[done:]
            progress(tally.tried)
    return tally


def _batch(kind, seed: int, indices: list[int], tally: Tally, slow_seconds: float,
           stop_seconds: float) -> int:
    """Run cases in one worker until they are done or it dies; how many were counted."""
    process, reading = worker.start(kind, seed, indices)
    counted, current, stopped = 0, None, False
    for message in worker.messages(reading, lambda: stop_seconds):
        if message is None:
            stopped = True
            worker.stop(process)
        elif 'start' in message:
            current = message['start']
        else:
            current, index = None, message.pop('end')
            tally.add(index, **message, slow_seconds=slow_seconds)
            counted += 1
    os.close(reading)
    _, status = os.waitpid(process, 0)
    if counted == len(indices):
        return counted
    assert current is not None, f'{kind.name}: the worker ended between two cases ({status})'
    description = kind.case(worker.case_seed(seed, kind.name, current)).description
    if stopped:
        tally.add(current, 'stopped', stop_seconds, False, description, 'had to be stopped',
                  slow_seconds=0)
    else:
        tally.add(current, 'crashed', 0, False, description,
                  f'ended by {os.waitstatus_to_exitcode(status)}', slow_seconds=slow_seconds)
    return counted + 1
