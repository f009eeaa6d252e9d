import json
import multiprocessing
import os
import resource
import signal

import lmdb
import pytest

from mmdet_bpu.datasets import CocoStore, lmdb_packer, pack_coco
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            return dict(transaction.cursor())


def in_child(function) -> int:
    process = multiprocessing.get_context('fork').Process(target=function)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'out' / 'train_lmdb'


def assert_nothing_written(target):
    assert not target.parent.exists() or os.listdir(target.parent) == []


def test_returns_the_meta_record(coco_files, target):
    meta = pack_coco(*coco_files, target)
    assert meta == CocoStore(target).meta
    assert os.listdir(target.parent) == ['train_lmdb']
    assert verify_database(target) == meta


def test_same_input_gives_the_same_bytes(coco_files, target):
    pack_coco(*coco_files, target)
    pack_coco(*coco_files, target.with_name('again'))
    assert (target / 'data.mdb').read_bytes() == (target.parent / 'again/data.mdb').read_bytes()


def test_small_map_and_batches_give_the_same_records(coco_files, target, monkeypatch):
    pack_coco(*coco_files, target)
    monkeypatch.setattr(lmdb_packer, 'FIRST_MAP_SIZE', 1 << 14)
    monkeypatch.setattr(lmdb_packer, 'BATCH_BYTES', 1000)
    pack_coco(*coco_files, target.with_name('grown'))
    assert records(target.with_name('grown')) == records(target)


def test_existing_target_is_refused_and_stays(coco_files, target):
    pack_coco(*coco_files, target)
    before = records(target)
    with pytest.raises(BpuError, match='train_lmdb exists.*--overwrite'):
        pack_coco(*coco_files, target)
    assert records(target) == before


def test_overwrite_replaces(coco_files, target):
    pack_coco(*coco_files, target)
    coco_files.rewrite(annotations=[])
    assert pack_coco(*coco_files, target, overwrite=True)['counts']['annotations'] == 0
    assert CocoStore(target).to_coco()['annotations'] == []
    assert os.listdir(target.parent) == ['train_lmdb']


def test_overwrite_never_deletes_what_is_no_database(coco_files, target):
    target.mkdir(parents=True)
    (target / 'thesis.tex').write_text('years of work')
    with pytest.raises(BpuError, match='is not an LMDB database.*not overwritten'):
        pack_coco(*coco_files, target, overwrite=True)
    assert (target / 'thesis.tex').exists()


def test_failed_overwrite_leaves_the_earlier_database(coco_files, target):
    pack_coco(*coco_files, target)
    before = records(target)
    (coco_files.img_dir / 'tiny.jpg').write_bytes(b'')
    with pytest.raises(BpuError, match='tiny.jpg'):
        pack_coco(*coco_files, target, overwrite=True)
    assert records(target) == before
    assert os.listdir(target.parent) == ['train_lmdb']


def test_missing_images_are_named_before_anything_is_written(coco_files, target):
    (coco_files.img_dir / 'a.jpg').unlink()
    (coco_files.img_dir / 'grey.png').unlink()
    with pytest.raises(BpuError, match=r'2 of 8 images .* are not in .*: a\.jpg, grey\.png'):
        pack_coco(*coco_files, target)
    assert_nothing_written(target)


def test_missing_image_folder_is_named(coco_files, target, tmp_path):
    with pytest.raises(BpuError, match='image folder .*elsewhere does not exist'):
        pack_coco(tmp_path / 'elsewhere', coco_files.ann_file, target)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>'], ids=['empty', 'not an image'])
def test_file_that_is_no_image_is_named(coco_files, target, content):
    (coco_files.img_dir / 'b.png').write_bytes(content)
    with pytest.raises(BpuError, match='b.png is not a readable image'):
        pack_coco(*coco_files, target)
    assert_nothing_written(target)


@pytest.mark.parametrize('text, message', [
    ('{"images": [', 'is not valid JSON'),
    ('[1, 2]', 'expected COCO detection JSON .* found a list'),
    ('{"images": [], "annotations": []}', '"categories" is missing'),
    ('{"images": {}, "categories": []}', '"images" is not a list'),
    ('{"images": [{"id": 1}], "categories": []}',
     r'images\[0\] lacks file_name, width, height'),
])
def test_unusable_annotation_file_is_named(coco_files, target, text, message):
    coco_files.ann_file.write_text(text)
    with pytest.raises(BpuError, match=message) as caught:
        pack_coco(*coco_files, target)
    assert 'instances.json' in str(caught.value)
    assert_nothing_written(target)


def test_missing_annotation_file_is_named(coco_files, target):
    coco_files.ann_file.unlink()
    with pytest.raises(BpuError, match='cannot read annotation file .*instances.json'):
        pack_coco(*coco_files, target)


def test_annotation_of_no_image_is_named(coco_files, target):
    annotations = coco_files.content()['annotations']
    annotations[3]['image_id'] = 4711
    coco_files.rewrite(annotations=annotations)
    with pytest.raises(BpuError, match=r'1 annotation\(s\) point at .*: 4 \(image_id 4711\)'):
        pack_coco(*coco_files, target)


@pytest.mark.parametrize('name, number', [('images', 7), ('annotations', 4), ('categories', 3)])
def test_repeated_ids_are_named(coco_files, target, name, number):
    entries = coco_files.content()[name]
    entries.append(next(entry for entry in entries if entry['id'] == number))
    coco_files.rewrite(**{name: entries})
    with pytest.raises(BpuError, match=rf'1 id\(s\) appear more than once in "{name}": {number}$'):
        pack_coco(*coco_files, target)


@pytest.mark.parametrize('image_id', ['000139', -1, 2**63, True, 1.5])
def test_image_id_that_is_no_key_is_named(coco_files, target, image_id):
    images = coco_files.content()['images']
    images[2]['id'] = image_id
    coco_files.rewrite(images=images, annotations=[])
    with pytest.raises(BpuError, match=r'images\[2\].id: expected an integer from 0'):
        pack_coco(*coco_files, target)


@pytest.mark.parametrize('bbox', [[1, 2, 3], None, [1, 2, 3, 'x']])
def test_malformed_box_is_named(coco_files, target, bbox):
    annotations = coco_files.content()['annotations']
    annotations[0]['bbox'] = bbox
    coco_files.rewrite(annotations=annotations)
    with pytest.raises(BpuError, match=r'annotation 1: expected bbox \[x, y, width, height\]'):
        pack_coco(*coco_files, target)


def test_killed_packer_leaves_nothing_under_the_name_and_does_not_disturb_the_next(
        coco_files, target, monkeypatch):
    read_image = lmdb_packer.read_image
    monkeypatch.setattr(lmdb_packer, 'BATCH_BYTES', 1000)

    def killed():
        def read_or_die(path):
            if path.name == 'tiny.jpg':
                os.kill(os.getpid(), signal.SIGKILL)
            return read_image(path)

        lmdb_packer.read_image = read_or_die
        pack_coco(*coco_files, target)

    assert in_child(killed) == -signal.SIGKILL
    assert not target.exists()
    assert (target.parent / 'train_lmdb.partial/data.mdb').stat().st_size > 0
    with pytest.raises(BpuError):
        len(CocoStore(target.parent / 'train_lmdb.partial'))
    pack_coco(*coco_files, target)
    assert os.listdir(target.parent) == ['train_lmdb']
    assert verify_database(target)['counts']['images'] == 8


def test_second_packer_on_one_target_is_refused(coco_files, target):
    target.parent.mkdir()
    with lmdb_packer._claimed(target):
        with pytest.raises(BpuError, match='another process is packing'):
            pack_coco(*coco_files, target)
    pack_coco(*coco_files, target)


def test_full_disk_is_a_clear_error_and_leaves_nothing(coco_files, target):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        with pytest.raises(BpuError, match='cannot write .*train_lmdb'):
            pack_coco(*coco_files, target)
        assert_nothing_written(target)

    assert in_child(limited) == 0


def test_data_set_without_annotations_or_images_packs(coco_files, target):
    content = coco_files.content()
    del content['annotations']
    coco_files.ann_file.write_text(json.dumps(content))
    assert pack_coco(*coco_files, target)['counts']['annotations'] == 0
    coco_files.rewrite(images=[])
    assert pack_coco(*coco_files, target, overwrite=True)['counts']['images'] == 0
    assert CocoStore(target).index.has_any_category([0]).tolist() == []


def test_verify_names_every_fault(coco_files, target):
    pack_coco(*coco_files, target)
    with lmdb.open(str(target), lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            key = b'image/%019d' % 7
            value = bytearray(transaction.get(key))
            value[-20] ^= 4
            transaction.put(key, bytes(value))
            transaction.delete(b'annotation/%019d' % 90)
            transaction.put(b'stranger', b'x')
    with pytest.raises(BpuError) as caught:
        verify_database(target)
    message = str(caught.value)
    assert '3 fault(s)' in message
    assert 'image 7 is damaged' in message
    assert 'annotation record of image 90 is missing' in message
    assert "record b'stranger'" in message
