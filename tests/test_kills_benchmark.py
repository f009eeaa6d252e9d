"""Killed trainings, by the script that kills many more of them."""
import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / 'benchmarks' / 'kills.py'


def kills(*arguments):
    done = subprocess.run([sys.executable, '-W', 'ignore', str(SCRIPT), *map(str, arguments)],
                          capture_output=True, text=True, timeout=900,
                          env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert 'Traceback' not in done.stderr, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_every_killed_run_resumes_bit_equal_by_its_own_command_line():
    code, counts, log = kills('--kills', 6, '--full-disk', 1, '--seed', 0, '--only', 'best',
                              'within_epochs')
    assert counts == dict(kills=6, resumed_equal=6, lost=0, disk_full=3, recovered=3), log
    assert code == 0


def test_stock_saving_is_told_apart():
    """It removes the old checkpoint first, writes in place and leaves what is incomplete."""
    code, counts, log = kills('--kills', 4, '--full-disk', 0, '--seed', 0, '--only', 'epochs',
                              '--stock-saving')
    assert code == 1 and counts['resumed_equal'] < counts['kills'] == 4, log
