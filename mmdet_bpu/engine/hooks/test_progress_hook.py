"""How far a test is, how fast it goes and how long it still takes."""
import datetime
import logging
import sys
import time
from contextlib import ExitStack
from typing import Callable, Optional, Sequence

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmdet_bpu.steps import on_terminal, progress_bar

SECONDS = 30.0
"""Between two lines of a log."""


@HOOKS.register_module()
class TestProgressHook(Hook):
    """On a terminal a bar, else a log line every :data:`SECONDS`; from the first process only.

    Integers on a CPU take seconds an image: mmengine's own line comes once in 50 batches, and says
    seconds a batch. :meth:`close` ends the bar where a test ends early.

    Args:
        clock (Callable): Seconds. Defaults to ``time.monotonic``.
    """

    __test__ = False  # pytest takes what is called Test... for a test
    priority = 'VERY_LOW'  # after what else an image causes

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bar = ExitStack()
        self._advance: Optional[Callable[[int], None]] = None
        self._began = self._said = 0.0
        self._done = self._total = 0

    def before_test_epoch(self, runner) -> None:
        """Begin at no images."""
        self._began = self._said = self._clock()
        self._done, self._total = 0, len(runner.test_dataloader.dataset)
        if is_main_process() and on_terminal():
            self._advance = self._bar.enter_context(progress_bar('test', self._total))
            for handler in runner.logger.handlers:  # its lines go above the bar
                if type(handler) is logging.StreamHandler:
                    self._bar.callback(handler.setStream, handler.setStream(sys.stdout))

    def after_test_iter(self, runner, batch_idx: int, data_batch=None,
                        outputs: Optional[Sequence] = None) -> None:
        """Count the images that all processes have done by now."""
        before = self._done
        self._done = min(before + len(outputs) * get_world_size(), self._total)
        if self._advance is not None:
            self._advance(self._done - before)
        elif is_main_process() and self._clock() - self._said >= SECONDS:
            self._said = self._clock()
            left = (self._total - self._done) * (self._said - self._began) / self._done
            runner.logger.info(f'{self._done} of {self._total} images, {self._rate()}, '
                               f'{datetime.timedelta(seconds=round(left))} left')

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Say how long it took."""
        self.close()
        seconds = datetime.timedelta(seconds=round(self._clock() - self._began))
        runner.logger.info(f'{self._done} images in {seconds}, {self._rate()}')

    def close(self) -> None:
        """End the bar, if there is one."""
        self._bar.close()
        self._advance = None

    def _rate(self) -> str:
        return f'{self._done / max(self._clock() - self._began, 1e-9):.3g} images/s'
