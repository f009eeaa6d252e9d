"""Progress on stderr: named steps of a verb, and how many items of a long list are done."""
from contextlib import contextmanager
from typing import Callable, Iterator, Sequence, TypeVar

from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task,
                           TextColumn, TimeElapsedColumn, TimeRemainingColumn)
from rich.text import Text

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


class _RateColumn(ProgressColumn):
    """Items per second, after the name of the items."""

    def __init__(self, items: str) -> None:
        super().__init__()
        self.items = items

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        if rate is None:
            return Text('')
        return Text(f'{rate:.{0 if rate >= 10 else 2}f} {self.items}/s')


def on_terminal() -> bool:
    """Whether somebody watches: a bar that is drawn over itself makes no sense in a file."""
    return Console(stderr=True).is_terminal


@contextmanager
def progress_bar(label: str, total: int, shown: bool = True,
                 items: str = 'images') -> Iterator[Callable[[int], None]]:
    """A bar while the block runs: how many, how fast, how long still.

    Args:
        label (str): What is being done.
        total (int): Number of items.
        shown (bool): Show it. Defaults to True.
        items (str): What is counted. Defaults to 'images'.

    Yields:
        Callable[[int], None]: Call it with the number of items done since the last call.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               _RateColumn(items), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def with_bar(items: Sequence[Item], label: str) -> Iterator[Item]:
    """The items, under a :func:`progress_bar` of how many are done."""
    with progress_bar(label, len(items), items=label) as advance:
        for item in items:
            yield item
            advance(1)
