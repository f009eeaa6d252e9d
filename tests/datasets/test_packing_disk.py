"""A disk that is full or refuses to be written gives one clear error and costs nothing."""
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from mmdet_bpu.datasets import CocoStore, pack_coco
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError

TOOL = Path(__file__).parents[2] / 'tools/pack_coco_lmdb.py'
PAGE = 4096  # bytes, of tmpfs and of LMDB


def records(path):
    """Every record of a database, by file and key."""
    found = {}
    for file in sorted(path.iterdir()):
        with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as environment:
            with environment.begin() as transaction:
                found[file.name] = dict(transaction.cursor())
    return found


class Disk:
    """A file system in memory."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self._mount('-t', 'tmpfs', '-o', 'size=1m', 'tmpfs')

    def set(self, options):
        """Change its options, e.g. ``size=8k`` or ``ro``."""
        self._mount('-o', f'remount,{options}')

    def _mount(self, *arguments):
        subprocess.run(['mount', *arguments, self.folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    try:
        disk = Disk(tmp_path / 'disk')
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'mounting a file system is not permitted here: {error}')
    yield disk
    subprocess.run(['umount', '--lazy', disk.folder], check=True)


@pytest.mark.parametrize('shards', [1, 2])
def test_disk_that_fills_up_at_any_point_is_said_and_resume_finishes(
        coco_files, tmp_path, disk, shards):
    pack_coco(*coco_files, tmp_path / 'whole', shards=shards)
    target = disk.folder / 'train_lmdb'
    errors = []
    for pages in range(1, 100):
        disk.set(f'size={pages * PAGE}')
        try:
            pack_coco(*coco_files, target, shards=shards, resume=True)
            break
        except BpuError as error:
            errors.append(str(error))
            assert not target.exists()
    assert records(target) == records(tmp_path / 'whole')
    assert verify_database(target)['counts']['images'] == 8
    assert os.listdir(disk.folder) == ['train_lmdb']
    assert len(errors) > 10
    for error in errors:
        assert error.startswith(f'cannot write {target}: ')
        assert 'No space left on device' in error or 'the disk is full' in error
    assert errors[-1].endswith('train_lmdb.partial keeps what was packed so far: go on with '
                               'parameter resume=True')


def test_full_disk_leaves_the_earlier_database(coco_files, disk):
    target = disk.folder / 'train_lmdb'
    pack_coco(*coco_files, target)
    earlier = records(target)
    coco_files.rewrite(annotations=[])
    used = sum(file.stat().st_size for file in target.iterdir())
    for pages in (1, 5, 10):
        disk.set(f'size={used + pages * PAGE}')
        with pytest.raises(BpuError, match='No space left on device|the disk is full'):
            pack_coco(*coco_files, target, overwrite=True)
        assert records(target) == earlier
        assert verify_database(target)['counts']['annotations'] == 12
    disk.set('size=1m')
    assert pack_coco(*coco_files, target, overwrite=True, resume=True)['counts'][
        'annotations'] == 0
    assert os.listdir(disk.folder) == ['train_lmdb']


def test_read_only_disk_is_said_and_its_database_can_be_read(coco_files, disk):
    target = disk.folder / 'train_lmdb'
    pack_coco(*coco_files, target)
    disk.set('ro')
    for out, options in ((target, dict(overwrite=True)), (disk.folder / 'other', {}),
                         (disk.folder / 'not' / 'there', {})):
        with pytest.raises(BpuError, match=f'cannot write {out}: .*Read-only file system'):
            pack_coco(*coco_files, out, **options)
    assert os.listdir(disk.folder) == ['train_lmdb']
    assert len(CocoStore(target).to_coco()['annotations']) == 12
    assert verify_database(target)['counts']['images'] == 8


def test_command_ends_with_code_2_and_one_line(coco_files, disk, monkeypatch, capsys):
    disk.set('ro')
    monkeypatch.setattr(sys, 'argv', [
        str(TOOL), '--img-dir', str(coco_files.img_dir), '--ann', str(coco_files.ann_file),
        '--out', str(disk.folder / 'train_lmdb')])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.startswith(f"error: cannot write {disk.folder / 'train_lmdb'}: ")
    assert printed.err.count('\n') == 1


@pytest.mark.skipif(os.geteuid() == 0, reason='permissions do not bind root')
def test_folder_without_permission_is_said(coco_files, tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o555)
    with pytest.raises(BpuError, match='cannot write .*: .*Permission denied'):
        pack_coco(*coco_files, tmp_path / 'locked' / 'train_lmdb')


def test_limit_of_file_size_is_said_and_resume_finishes(coco_files, tmp_path):
    pack_coco(*coco_files, tmp_path / 'whole')
    target = tmp_path / 'out' / 'train_lmdb'

    def limited(size):
        def pack():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            with pytest.raises(BpuError, match='cannot write .*train_lmdb: .*(File too large|the '
                               'disk is full, over a quota or faulty)'):
                pack_coco(*coco_files, target, resume=True)
            assert not target.exists()

        process = multiprocessing.get_context('fork').Process(target=pack)
        process.start()
        process.join()
        return process.exitcode

    assert [limited(size) for size in (10, 10_000, 30_000, 50_000)] == [0, 0, 0, 0]
    pack_coco(*coco_files, target, resume=True)
    assert records(target) == records(tmp_path / 'whole')


def test_target_under_a_file_is_said(coco_files, tmp_path):
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(BpuError, match='cannot write .*notes.txt/train_lmdb: '):
        pack_coco(*coco_files, tmp_path / 'notes.txt' / 'train_lmdb')
    assert (tmp_path / 'notes.txt').is_file()
