"""What a long test says while it runs."""
import io
import logging
from types import SimpleNamespace

import pytest

from mmdet_bpu.engine.hooks import TestProgressHook
from mmdet_bpu.engine.hooks.test_progress_hook import SECONDS


@pytest.fixture
def runner():
    logger = logging.Logger('test progress')
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=range(5)), logger=logger)


def written(runner) -> str:
    handler, = runner.logger.handlers
    return handler.stream.getvalue()


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(runner):
    now = [0.0]
    hook = TestProgressHook(clock=lambda: now[0])
    hook.before_test_epoch(runner)
    for batch in range(3):  # of two images; the sampler fills the last one up
        now[0] += SECONDS / 2
        hook.after_test_iter(runner, batch, outputs=[None, None])
    hook.after_test_epoch(runner)
    assert written(runner).splitlines() == [
        '4 of 5 images, 0.133 images/s, 0:00:08 left', '5 images in 0:00:45, 0.111 images/s']


def test_a_terminal_has_a_bar_and_log_lines_above_it(runner, capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    handler, = runner.logger.handlers
    stream, hook = handler.stream, TestProgressHook()
    hook.before_test_epoch(runner)
    runner.logger.info('a line')
    for batch in range(3):
        hook.after_test_iter(runner, batch, outputs=[None])
    hook.close()
    assert handler.stream is stream
    said = capsys.readouterr().err
    assert not written(runner)
    assert 'a line' in said and '3/5' in said and 'images/s' in said


def test_other_processes_say_nothing(runner, monkeypatch):
    module = 'mmdet_bpu.engine.hooks.test_progress_hook'
    monkeypatch.setattr(f'{module}.is_main_process', lambda: False)
    hook = TestProgressHook(clock=iter(range(0, 1000, 100)).__next__)
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, outputs=[None])
    assert not written(runner)
