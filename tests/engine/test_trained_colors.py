"""Checkpoints say which colours their weights know, and a run warns of others."""
import logging
import re

import pytest

from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.trained_colors import KEY, trained_colors, warn_of_other_colors
from mmdet_bpu.engine.weights import read_checkpoint

ON_YUV = dict(format='nv12', model='yuv')


@pytest.mark.parametrize('input_format, colors', [
    (None, 'rgb'), ('bgr', 'rgb'), ('nv12', 'rgb'), (dict(format='gray'), 'rgb'), (ON_YUV, 'yuv')])
def test_what_a_model_sees(input_format, colors):
    assert trained_colors(input_format) == colors


@pytest.mark.parametrize('meta, input_format, words', [
    ({}, ON_YUV, "x.pth: it does not say that it was trained on Y, U, V.*model='rgb'"),
    ({KEY: 'rgb'}, ON_YUV, 'does not say'),
    ({KEY: 'yuv'}, 'nv12', "it was trained on Y, U, V, and .* data preprocessor; set .*model='yuv'"),
    ({KEY: 'yuv'}, 'bgr', 'it was trained on Y, U, V'),
    ({}, 'nv12', None), ({KEY: 'yuv'}, ON_YUV, None), ({KEY: 'rgb'}, None, None)])
def test_other_colors_are_warned_of(meta, input_format, words, monkeypatch):
    said = []
    monkeypatch.setattr('mmdet_bpu.engine.trained_colors.print_log',
                        lambda text, logger, level: said.append((text, level)))
    warn_of_other_colors(meta, input_format, 'x.pth')
    assert len(said) == bool(words)
    if words:
        text, level = said[0]
        assert level == logging.WARNING and re.search(words, text)


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr('mmdet_bpu.engine.staged_model.warn_of_other_colors',
                        lambda meta, input_format, path: said.append(path))
    return said


def test_float_weights_are_looked_at_where_they_are_fed_as_deployed(staged, trained, tmp_path, warned):
    source = {stage: str(next((trained / f'tiny_{stage}').glob('epoch_1.pth')))
              for stage in ('float', 'calibration')}
    BPURunner.from_cfg(staged('float', tmp_path / 'a', load_from=source['float']))
    BPURunner.from_cfg(staged('qat', tmp_path / 'b', load_from=source['calibration']))
    assert not warned
    BPURunner.from_cfg(staged('float', tmp_path / 'c', load_from=source['float'],
                              bpu__deploy_preprocessing=True))
    BPURunner.from_cfg(staged('qat', tmp_path / 'd', load_from=source['float']))
    assert warned == [source['float']] * 2


def test_a_run_says_so_and_writes_what_it_trained_on(staged, trained, tmp_path):
    source = str(trained / 'tiny_float' / 'epoch_2.pth')
    assert read_checkpoint(source)['meta'][KEY] == 'rgb'
    cfg = staged('calibration', tmp_path / 'x_calibration', load_from=source,
                 bpu__input_format=ON_YUV)
    runner = BPURunner.from_cfg(cfg)
    runner.train()
    log, = (tmp_path / 'x_calibration').glob('*/*.log')
    assert f'WARNING - checkpoint {source}: it does not say that it was trained' in log.read_text()
    saved = str(tmp_path / 'x_calibration' / 'epoch_1.pth')
    assert read_checkpoint(saved)['meta'][KEY] == 'yuv'


def test_a_teacher_of_its_own_is_looked_at_too(staged, trained, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr('mmdet_bpu.engine.runner.warn_of_other_colors',
                        lambda meta, input_format, path: warned.append((meta[KEY], path)))
    source = str(trained / 'tiny_calibration' / 'epoch_1.pth')
    other = str(trained / 'tiny_float' / 'epoch_2.pth')
    for name, distill in (('own', dict(outputs=1.0)), ('other', dict(outputs=1.0, teacher=other))):
        BPURunner.from_cfg(staged('qat', tmp_path / name, load_from=source,
                                  bpu__qat__distill=distill)).train()
    assert warned == [('rgb', other)]
