"""Progress bar of packing and verifying: how many, how fast, how long still."""
from contextlib import contextmanager
from typing import Callable, Iterator

from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task,
                           TextColumn, TimeRemainingColumn)
from rich.text import Text


class _RateColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text('' if rate is None else f'{rate:.0f} images/s')


@contextmanager
def progress_bar(label: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while the block runs.

    Args:
        label (str): What is being done.
        total (int): Number of images.
        shown (bool): Show it.

    Yields:
        Callable[[int], None]: Call it with the number of images done since the last call.
    """
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), _RateColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
