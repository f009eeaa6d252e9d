"""Progress on stderr: named steps of a verb, and items of a long list."""
from typing import Callable, Iterator, Sequence, TypeVar

from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn,
                           TimeRemainingColumn)

Item = TypeVar('Item')
Step = Callable[[str], None]


def silent(name: str) -> None:
    """A :data:`Step` that shows nothing."""


class Steps:
    """A progress bar over ``total`` steps, each announced by its name when it begins.

    Args:
        total (int): How many steps will be announced.
    """

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            TextColumn('{task.description:<32}'), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._bar.add_task('', total=total)
        self._begun = False

    def __enter__(self) -> 'Steps':
        self._bar.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            self._bar.update(self._task, completed=self._bar.tasks[0].total, description='done')
        self._bar.stop()

    def __call__(self, name: str) -> None:
        """Begin the step ``name``; the one before it is done."""
        self._bar.update(self._task, advance=1 if self._begun else 0, description=name)
        self._begun = True


def with_bar(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar of how many are done and the time left."""
    columns = (TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, description=description)
