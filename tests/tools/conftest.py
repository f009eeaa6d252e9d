"""A small random detector, calibrated and deployed once, and tools run in this process."""
import contextlib
import io
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.random_checkpoints import random_checkpoints_of

CHECKOUT = Path(__file__).resolve().parents[2]
DIGITS = CHECKOUT / 'configs' / 'demo' / 'digits_float.py'


@dataclass
class Done:
    """What a tool left behind."""
    code: int
    out: str
    err: str


def run_tool(name: str, *arguments) -> Done:
    """Run ``tools/<name>`` as ``__main__`` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    former, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(CHECKOUT / 'tools' / name), run_name='__main__')
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = former
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope='session')
def tool():
    """Function (name, *arguments) -> exit code, stdout and stderr of a command."""
    return run_tool


@pytest.fixture(scope='session')
def digits_config() -> Path:
    """Config of a two-stage detector with a ResNet-18."""
    return DIGITS


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory) -> dict:
    """Stage (float, calibration) -> checkpoint of the same random weights."""
    from mmdet_bpu.engine.stages import load_config
    cfg = load_config(str(DIGITS), 'calibration', {'bpu.calibration.observer': 'minmax'})
    return random_checkpoints_of(cfg, tmp_path_factory.mktemp('checkpoints'))


@pytest.fixture(scope='session')
def deployment(checkpoints, tmp_path_factory):
    """The folder that ``tools/deploy_bpu.py`` wrote, and what it printed."""
    folder = tmp_path_factory.mktemp('deployed') / 'deploy'
    done = run_tool('deploy_bpu.py', DIGITS, checkpoints['calibration'], '--out', folder,
                    '--backend', 'sim')
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture(scope='session')
def photos(tmp_path_factory) -> Path:
    """Two pictures of unlike sizes, one of them in a sub-folder."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    rng = np.random.default_rng(0)
    for name, height, width in (('a.png', 90, 130), ('more/a.jpg', 200, 150)):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(coarse, (width, height)))
    return folder
