"""Packers of one target: one packs, the others say so and leave nothing behind."""
import fcntl
import os

import pytest

from mmdet_bpu.datasets import lmdb_packer, lmdb_target, pack_coco
from mmdet_bpu.datasets.coco_source import CocoSource
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError


@pytest.fixture
def while_reading(monkeypatch):
    """Do something once, while a packer reads its input: after its first look at the target."""
    def arrange(act):
        class Source(CocoSource):
            @classmethod
            def read(cls, *arguments):
                monkeypatch.setattr(lmdb_packer, 'CocoSource', CocoSource)
                act()
                return CocoSource.read(*arguments)

        monkeypatch.setattr(lmdb_packer, 'CocoSource', Source)
    return arrange


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_packer_that_comes_second_leaves_nothing(coco_files, tmp_path, while_reading):
    out = tmp_path / 'out' / 'train_lmdb'
    while_reading(lambda: pack_coco(*coco_files, out, processes=1))
    with pytest.raises(BpuError, match='train_lmdb exists; choose another name'):
        pack_coco(*coco_files, out, processes=1)
    assert names(out.parent) == ['train_lmdb']
    out.rename(tmp_path / 'elsewhere')
    pack_coco(*coco_files, out, processes=1)
    assert verify_database(out)['counts']['images'] == 8


def test_packer_that_replaces_what_came_meanwhile_leaves_only_its_own(
        coco_files, tmp_path, while_reading):
    out = tmp_path / 'out' / 'train_lmdb'
    while_reading(lambda: pack_coco(*coco_files, out, subset=3, processes=1))
    pack_coco(*coco_files, out, overwrite=True, processes=1)
    assert names(out.parent) == ['train_lmdb']
    assert verify_database(out)['counts']['images'] == 8


def test_packer_beside_one_that_works_leaves_nothing(coco_files, tmp_path):
    out = tmp_path / 'out' / 'train_lmdb'
    out.parent.mkdir()
    with lmdb_target.claimed(out):
        with pytest.raises(BpuError, match='another process is packing'):
            pack_coco(*coco_files, out, processes=1)
    assert names(out.parent) == []


def test_claim_is_taken_where_the_holder_ends_in_that_moment(tmp_path, monkeypatch):
    """The file that was opened is no more the one of that name."""
    out, flock = tmp_path / 'train_lmdb', fcntl.flock
    left = ['unlinked', 'another in its place']

    def flock_late(file, operation):
        if left:
            os.unlink(file.name)
            if left.pop() == 'another in its place':
                open(file.name, 'w').close()
        flock(file, operation)

    monkeypatch.setattr(lmdb_target.fcntl, 'flock', flock_late)
    with lmdb_target.claimed(out):
        assert names(tmp_path) == ['.train_lmdb.lock']
    assert names(tmp_path) == [] and not left


def test_lock_file_of_a_packer_that_was_killed_blocks_nobody(coco_files, tmp_path):
    (tmp_path / '.train_lmdb.lock').touch()
    pack_coco(*coco_files, tmp_path / 'train_lmdb', processes=1)
    assert names(tmp_path) == ['coco', 'train_lmdb']
