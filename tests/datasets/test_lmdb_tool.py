import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / 'tools/pack_coco_lmdb.py'


@pytest.fixture
def tool(monkeypatch):
    """Run the command in this process: ``tool('--verify', path)``; returns the exit code."""

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            return end.code or 0
        return 0

    return run


def test_packs_and_verifies(tool, coco_files, tmp_path, capsys):
    out = tmp_path / 'train_lmdb'
    assert tool('--img-dir', coco_files.img_dir, '--ann', coco_files.ann_file, '--out', out) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f'packed {out}: 8 images, 12 annotations, 3 categories')
    assert '8/8' in printed.err
    assert tool('--verify', out) == 0
    assert capsys.readouterr().out.startswith(f'verified {out}: 8 images')


def test_packs_again_only_when_told(tool, coco_files, packed, capsys):
    arguments = ('--img-dir', coco_files.img_dir, '--ann', coco_files.ann_file, '--out', packed)
    assert tool(*arguments) == 2
    assert capsys.readouterr().err == (f'error: {packed} exists; choose another name, or replace '
                                       'it with --overwrite\n')
    assert tool(*arguments, '--overwrite') == 0


@pytest.mark.parametrize('arguments, message', [
    (['--out', 'x'], 'packing needs --img-dir, --ann'),
    (['--verify', 'x', '--out', 'y'], '--verify takes no other option'),
    (['--verify', 'x', '--overwrite'], '--verify takes no other option'),
])
def test_wrong_combination_of_options_is_explained(tool, capsys, arguments, message):
    assert tool(*arguments) == 2
    assert message in capsys.readouterr().err


def test_bad_input_ends_with_code_2_and_one_message(tmp_path):
    ended = subprocess.run(
        [sys.executable, TOOL, '--verify', tmp_path / 'nowhere'], cwd=REPOSITORY, text=True,
        capture_output=True, env={'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'})
    assert ended.returncode == 2
    assert 'no packed COCO data set at' in ended.stderr
    assert 'Traceback' not in ended.stderr
    assert ended.stdout == ''
