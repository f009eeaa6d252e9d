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


def test_finds_coco_in_its_own_layout(tool, coco_files, tmp_path, capsys):
    root = tmp_path / 'mscoco'
    (root / 'annotations').mkdir(parents=True)
    coco_files.img_dir.rename(root / 'val2017')
    coco_files.ann_file.rename(root / 'annotations/instances_val2017.json')
    assert tool('--data-root', root, '--split', 'val') == 0
    assert capsys.readouterr().out.startswith(f"packed {root / 'val_lmdb'}: 8 images")
    assert tool('--data-root', root, '--split', 'val', '--out', tmp_path / 'few', '--subset', 2,
                '--shards', 2) == 0
    assert tool('--data-root', root, '--split', 'train') == 2
    assert f"{root / 'annotations/instances_train2017.json'}" in capsys.readouterr().err


def test_lists_notes_and_skipped_images_at_the_end_and_again_when_verifying(
        tool, coco_files, tmp_path, capsys):
    out = tmp_path / 'train_lmdb'
    (coco_files.img_dir / 'tiny.jpg').write_bytes(b'<html>')
    (coco_files.img_dir / 'a.jpg').unlink()
    arguments = ('--img-dir', coco_files.img_dir, '--ann', coco_files.ann_file, '--out', out)
    assert tool(*arguments) == 2
    assert '1 of 8 images' in capsys.readouterr().err
    assert tool(*arguments, '--on-error', 'skip') == 0
    printed = capsys.readouterr()
    assert printed.out.rstrip().endswith('2 skipped')
    listed = [
        'note: box is outside its image: annotation 7 of image 25',
        'note: image is not JPEG, stored as it is: b.png, grey.png',
        'skipped image 26: tiny.jpg is not a readable image',
        'skipped image 139: a.jpg is missing']
    for line in listed:
        assert f'\n{line}' in printed.err
    assert tool('--verify', out) == 0
    printed = capsys.readouterr()
    for line in listed:
        assert f'\n{line}' in f'\n{printed.err}'


@pytest.mark.parametrize('arguments, message', [
    (['--out', 'x'], 'packing needs --img-dir, --ann'),
    (['--verify', 'x', '--out', 'y'], '--verify takes no other option'),
    (['--verify', 'x', '--overwrite'], '--verify takes no other option'),
    (['--verify', 'x', '--shards', '2'], '--verify takes no other option'),
    (['--data-root', 'x'], '--data-root and --split go together'),
    (['--split', 'train', '--img-dir', 'x'], '--data-root and --split go together'),
    (['--data-root', 'x', '--split', 'train', '--ann', 'y'], 'stand in place of --img-dir and'),
    (['--on-error', 'ignore'], "invalid choice: 'ignore'"),
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
