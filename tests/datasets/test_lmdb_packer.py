import json
import os

import lmdb
import pytest

from mmdet_bpu.datasets import CocoStore, image_readers, lmdb_writer, pack_coco
from mmdet_bpu.datasets.lmdb_target import claimed
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            return dict(transaction.cursor())


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
    monkeypatch.setattr(lmdb_writer, 'FIRST_MAP_SIZE', 1 << 14)
    monkeypatch.setattr(lmdb_writer, 'BATCH_BYTES', 1000)
    pack_coco(*coco_files, target.with_name('grown'))
    assert records(target.with_name('grown')) == records(target)


def test_existing_target_is_refused_and_stays(coco_files, target):
    pack_coco(*coco_files, target)
    before = records(target)
    with pytest.raises(BpuError, match='train_lmdb exists.*parameter overwrite=True'):
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
    with pytest.raises(BpuError, match='tiny.jpg is an empty file'):
        pack_coco(*coco_files, target, overwrite=True)
    assert records(target) == before
    assert sorted(os.listdir(target.parent)) == ['train_lmdb', 'train_lmdb.partial']


def test_missing_images_are_named_before_anything_is_written(coco_files, target):
    (coco_files.img_dir / 'a.jpg').unlink()
    (coco_files.img_dir / 'grey.png').unlink()
    with pytest.raises(BpuError, match=r'2 of 8 images .* are not in .*: a\.jpg, grey\.png'):
        pack_coco(*coco_files, target)
    assert_nothing_written(target)


def test_missing_image_folder_is_named(coco_files, target, tmp_path):
    with pytest.raises(BpuError, match='image folder .*elsewhere does not exist'):
        pack_coco(tmp_path / 'elsewhere', coco_files.ann_file, target)


def test_stop_at_a_bad_image_keeps_what_was_packed_for_resume(coco_files, target):
    path = coco_files.img_dir / 'b.png'
    whole = path.read_bytes()
    path.write_bytes(b'<html>404</html>')
    with pytest.raises(BpuError, match=r"b\.png is not a readable image .*on_error='skip', and go "
                       r'on with parameter resume=True: .*train_lmdb\.partial keeps the 7 images'):
        pack_coco(*coco_files, target)
    assert not target.exists()
    with pytest.raises(BpuError, match='is an interrupted packing: go on with parameter '
                       'resume=True, or start over with parameter overwrite=True'):
        pack_coco(*coco_files, target)
    path.write_bytes(whole)
    pack_coco(*coco_files, target, resume=True)
    pack_coco(*coco_files, target.with_name('whole'))
    assert records(target) == records(target.with_name('whole'))


def test_nothing_is_left_when_no_image_was_packed(coco_files, target):
    for image in coco_files.content()['images']:
        (coco_files.img_dir / image['file_name']).write_bytes(b'')
    with pytest.raises(BpuError, match='is an empty file'):
        pack_coco(*coco_files, target)
    assert_nothing_written(target)


def test_overwrite_starts_an_interrupted_packing_over(coco_files, target):
    path = coco_files.img_dir / 'b.png'
    whole = path.read_bytes()
    path.write_bytes(b'')
    with pytest.raises(BpuError):
        pack_coco(*coco_files, target)
    path.write_bytes(whole)
    pack_coco(*coco_files, target, overwrite=True)
    assert os.listdir(target.parent) == ['train_lmdb']


def test_bad_images_are_skipped_when_told_and_listed(coco_files, target):
    (coco_files.img_dir / 'b.png').write_bytes(b'')
    (coco_files.img_dir / 'a.jpg').unlink()
    meta = pack_coco(*coco_files, target, on_error='skip')
    assert meta['report']['skipped'] == [
        dict(id=7, file_name='b.png', reason='is an empty file'),
        dict(id=139, file_name='a.jpg', reason='is missing')]
    store = CocoStore(target)
    kept = [image['id'] for image in coco_files.content()['images'] if image['id'] not in (7, 139)]
    assert store.read_index().ids.tolist() == kept
    assert {a['image_id'] for a in store.to_coco()['annotations']} <= set(kept)
    assert meta['counts']['images'] == 6
    assert verify_database(target) == meta


def test_subset_takes_the_first_images_of_the_file(coco_files, target):
    meta = pack_coco(*coco_files, target, subset=3)
    first = [image['id'] for image in coco_files.content()['images'][:3]]
    assert CocoStore(target).read_index().ids.tolist() == first
    assert meta['counts']['images'] == 3
    assert meta['source']['subset'] == 3


@pytest.mark.parametrize('subset', [0, -1, 9])
def test_subset_out_of_range_is_refused(coco_files, target, subset):
    with pytest.raises(BpuError, match=f'parameter subset: expected 1 to 8, .* found {subset}'):
        pack_coco(*coco_files, target, subset=subset)


@pytest.mark.parametrize('arguments, message', [
    (dict(shards=0), 'parameter shards: expected 1 to 1000, found 0'),
    (dict(processes=0), 'parameter processes: expected 1 or more, found 0'),
    (dict(check_images='thoroughly'),
     "parameter check_images: expected one of decode, header, none, found 'thoroughly'"),
    (dict(on_error='ignore'), "parameter on_error: expected one of stop, skip, found 'ignore'"),
])
def test_argument_out_of_range_is_refused(coco_files, target, arguments, message):
    with pytest.raises(BpuError, match=message):
        pack_coco(*coco_files, target, **arguments)


@pytest.mark.parametrize('shards', [2, 5, 20])
def test_shards_hold_the_same_records_between_them(coco_files, target, shards):
    pack_coco(*coco_files, target)
    whole = records(target)
    meta = pack_coco(*coco_files, target.with_name('sharded'), shards=shards)
    files = sorted(target.with_name('sharded').iterdir())
    assert len(files) == shards + 1
    together = {}
    for file in files:
        with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as environment:
            with environment.begin() as transaction:
                together.update(dict(transaction.cursor()))
    del together[b'meta'], whole[b'meta']
    assert together == whole
    assert CocoStore(target.with_name('sharded')).to_coco() == CocoStore(target).to_coco()
    assert verify_database(target.with_name('sharded')) == meta


@pytest.mark.parametrize('processes', [1, 3])
def test_number_of_readers_does_not_change_the_bytes(coco_files, target, processes):
    pack_coco(*coco_files, target)
    pack_coco(*coco_files, target.with_name('again'), processes=processes)
    assert (target / 'data.mdb').read_bytes() == (target.parent / 'again/data.mdb').read_bytes()


def test_image_larger_than_the_shared_arena_is_packed(coco_files, target, monkeypatch):
    pack_coco(*coco_files, target)
    monkeypatch.setattr(image_readers, 'ARENA_BYTES', 4096)
    pack_coco(*coco_files, target.with_name('again'))
    assert records(target) == records(target.with_name('again'))


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
    with pytest.raises(BpuError, match=r'images\[2\].id: expected a'):
        pack_coco(*coco_files, target)


@pytest.mark.parametrize('bbox', [[1, 2, 3], None, [1, 2, 3, 'x']])
def test_malformed_box_is_named(coco_files, target, bbox):
    annotations = coco_files.content()['annotations']
    annotations[0]['bbox'] = bbox
    coco_files.rewrite(annotations=annotations)
    with pytest.raises(BpuError, match=r'annotation 1: expected bbox \[x, y, width, height\]'):
        pack_coco(*coco_files, target)


def test_second_packer_on_one_target_is_refused(coco_files, target):
    target.parent.mkdir()
    with claimed(target):
        with pytest.raises(BpuError, match='another process is packing'):
            pack_coco(*coco_files, target)
    pack_coco(*coco_files, target)


def test_data_set_without_annotations_or_images_packs(coco_files, target):
    content = coco_files.content()
    del content['annotations']
    coco_files.ann_file.write_text(json.dumps(content))
    assert pack_coco(*coco_files, target)['counts']['annotations'] == 0
    coco_files.rewrite(images=[])
    assert pack_coco(*coco_files, target, overwrite=True)['counts']['images'] == 0
    assert CocoStore(target).read_index().has_any_category([0]).tolist() == []


def test_verify_names_every_fault(coco_files, target):
    pack_coco(*coco_files, target)
    with lmdb.open(str(target), lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            key = b'image/%019d' % 7
            value = bytearray(transaction.get(key))
            value[-20] ^= 4
            transaction.put(key, bytes(value))
            transaction.delete(b'instances/%019d' % 90)
            transaction.put(b'stranger', b'x')
    with pytest.raises(BpuError) as caught:
        verify_database(target)
    message = str(caught.value)
    assert '3 fault(s)' in message
    assert 'image 7 is damaged' in message
    assert 'instance record of image 90 is lost' in message
    assert "record 'stranger' does not belong in data.mdb" in message
