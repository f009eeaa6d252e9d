"""What is packed, or lies where packing writes, is never thrown away without a word."""
import json
import os
import shutil

import lmdb
import pytest

from mmdet_bpu.datasets import CocoStore, lmdb_writer, pack_coco
from mmdet_bpu.datasets.lmdb_format import image_key
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.datasets.lmdb_writer import RecordWriter
from mmdet_bpu.errors import BpuError


@pytest.fixture
def interrupted(coco_files, tmp_path):
    """``<out>`` and the partial folder of a packing that stopped at its last image."""
    last = coco_files.img_dir / 'deep/er/c.jpg'
    content = last.read_bytes()
    last.write_bytes(b'')
    with pytest.raises(BpuError, match='c.jpg is an empty file'):
        pack_coco(*coco_files, tmp_path / 'out_lmdb')
    last.write_bytes(content)
    return tmp_path / 'out_lmdb', tmp_path / 'out_lmdb.partial'


def number_of_records(file) -> int:
    with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as environment:
        return environment.stat()['entries']


def test_file_that_cannot_be_opened_just_now_is_kept(interrupted, monkeypatch):
    _, partial = interrupted
    before = number_of_records(partial / 'data.mdb')
    open_file = lmdb.open

    def out_of_memory(*arguments, **options):
        raise lmdb.MemoryError('Cannot allocate memory')

    monkeypatch.setattr(lmdb, 'open', out_of_memory)
    with pytest.raises((BpuError, lmdb.Error), match='Cannot allocate memory'):
        RecordWriter(partial / 'data.mdb')
    monkeypatch.setattr(lmdb, 'open', open_file)
    assert number_of_records(partial / 'data.mdb') == before > 5


@pytest.mark.parametrize('plan', [None, '', '{"shards"'])
@pytest.mark.parametrize('resume', [True, False])
def test_partial_folder_without_a_plan_is_only_discarded_by_overwrite(
        coco_files, interrupted, plan, resume):
    out, partial = interrupted
    (partial / 'packing.json').unlink()
    if plan is not None:
        (partial / 'packing.json').write_text(plan)
    with pytest.raises(BpuError, match='is in the way: it holds data, but no packing.json'):
        pack_coco(*coco_files, out, resume=resume)
    assert number_of_records(partial / 'data.mdb') > 5
    pack_coco(*coco_files, out, overwrite=True)


def test_database_of_a_similar_name_is_left_alone(coco_files, tmp_path):
    for name in ('db', 'db.replaced'):
        pack_coco(*coco_files, tmp_path / name)
    pack_coco(*coco_files, tmp_path / 'db', overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['coco', 'db', 'db.replaced']
    verify_database(tmp_path / 'db.replaced')


def test_resume_from_another_folder_is_refused(coco_files, interrupted, tmp_path):
    out, _ = interrupted
    shutil.copytree(coco_files.img_dir, tmp_path / 'copy/images')
    with pytest.raises(BpuError, match="begun from other input .img_dir was '.*coco/images', is "
                       "'.*copy/images'"):
        pack_coco(tmp_path / 'copy/images', coco_files.ann_file, out, resume=True)


def test_resume_checks_what_is_packed_as_it_is_told_now(coco_files, tmp_path):
    out = tmp_path / 'out_lmdb'
    (coco_files.img_dir / 'a.jpg').write_bytes(b'not an image')
    (coco_files.img_dir / 'deep/er/c.jpg').write_bytes(b'')
    with pytest.raises(BpuError, match='c.jpg is an empty file'):
        pack_coco(*coco_files, out, check_images='none')
    with pytest.raises(BpuError, match='a.jpg is not a readable image'):
        pack_coco(*coco_files, out, check_images='header', resume=True)


def test_many_records_are_removed_from_a_file_that_fills_its_map(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, 'FIRST_MAP_SIZE', 1 << 16)
    monkeypatch.setattr(lmdb_writer, 'BATCH_BYTES', 1 << 16)
    keys = [image_key(number) for number in range(5000)]
    with RecordWriter(tmp_path / 'x.mdb') as writer:
        for key in keys:
            writer.put(key, bytes(2500))
    with RecordWriter(tmp_path / 'x.mdb') as writer:
        writer.delete(keys[::2])
    assert number_of_records(tmp_path / 'x.mdb') == 2500


def test_verification_killed_from_outside_is_not_called_damage(packed, monkeypatch):
    from mmdet_bpu.datasets import lmdb_verify
    monkeypatch.setattr(lmdb_verify, '_verify', lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(BpuError, match='was ended by SIGKILL; verify it again'):
        verify_database(packed)


def test_fault_of_a_database_with_a_colon_in_its_name_is_named(coco_files, tmp_path):
    out = tmp_path / 'a: b'
    pack_coco(*coco_files, out)
    with lmdb.open(str(out), lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(image_key(7), b'12345678')
    with pytest.raises(BpuError, match=r'has 1 fault\(s\): image 7 is damaged'):
        verify_database(out)


def test_meta_names_the_hash_of_all_images(coco_files, packed, tmp_path):
    store = CocoStore(packed)
    image = coco_files.img_dir / 'a.jpg'
    image.write_bytes(image.read_bytes() + b'\0')
    meta = pack_coco(*coco_files, tmp_path / 'again')
    assert len(meta['images_sha256']) == 64 and meta['images_sha256'] != store.meta['images_sha256']
    assert json.dumps(meta['source']) == json.dumps(store.meta['source'])
    assert CocoStore(tmp_path / 'again').identity != store.identity == CocoStore(packed).identity
