import json
import multiprocessing
import os
import pickle

import lmdb
import pytest

from mmdet_bpu.datasets import CocoStore, open_store, pack_coco
from mmdet_bpu.datasets.lmdb_format import encode_json, encode_record, image_key
from mmdet_bpu.errors import BpuError


def edit(path, key, value):
    """Put a raw value (None: delete) with plain lmdb, as any other program could."""
    with lmdb.open(str(path), lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)


def edited_meta(path, **fields):
    meta = CocoStore(path).meta
    edit(path, b'meta', encode_record(b'meta', encode_json({**meta, **fields})))


def test_image_bytes_are_those_of_the_file(coco_files, packed):
    store = CocoStore(packed)
    for image in coco_files.content()['images']:
        with store.image(image['id']) as content:
            assert isinstance(content, memoryview)
            assert content == (coco_files.img_dir / image['file_name']).read_bytes()


def test_raw_values_decode_in_any_lmdb_reader(coco_files, packed):
    import cv2
    import numpy as np
    with lmdb.open(str(packed), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            for image in coco_files.content()['images']:
                value = transaction.get(b'image/%019d' % image['id'])
                expected = cv2.imread(str(coco_files.img_dir / image['file_name']))
                assert np.array_equal(cv2.imdecode(np.frombuffer(value, np.uint8), 1), expected)


def test_annotation_file_comes_back_grouped_by_image(coco_files, packed):
    expected = coco_files.content()
    order = {image['id']: n for n, image in enumerate(expected['images'])}
    expected['annotations'].sort(key=lambda annotation: order[annotation['image_id']])
    assert CocoStore(packed).to_coco() == expected


def test_index_answers_without_reading_records(coco_files, packed):
    content, index = coco_files.content(), CocoStore(packed).read_index()
    assert index.ids.tolist() == [image['id'] for image in content['images']]
    assert index.widths.tolist() == [image['width'] for image in content['images']]
    assert index.heights.tolist() == [image['height'] for image in content['images']]
    for column, category in enumerate(content['categories']):
        with_it = {a['image_id'] for a in content['annotations']
                   if a['category_id'] == category['id']}
        assert set(index.ids[index.has_any_category([column])].tolist()) == with_it
    assert not index.has_any_category([]).any()


def test_store_travels_to_other_processes_as_its_path(packed):
    store = CocoStore(packed)
    assert len(store) == 8
    copy = pickle.loads(pickle.dumps(store))
    assert copy.__getstate__() == store.__getstate__()
    assert len(pickle.dumps(store)) < 300
    assert len(copy) == 8


def test_forked_children_open_the_database_again(packed):
    store = open_store(packed)
    with store.image(139) as content:
        expected = bytes(content)

    def child(queue):
        with store.image(139) as content:
            queue.put(bytes(content))

    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    children = [context.Process(target=child, args=(queue,)) for _ in range(3)]
    for process in children:
        process.start()
    assert [queue.get(timeout=60) for _ in children] == [expected] * 3
    for process in children:
        process.join(60)
        assert process.exitcode == 0
    with store.image(139) as content:
        assert content == expected


def test_two_stores_of_one_database_live_in_one_process(packed):
    first, second = CocoStore(packed), CocoStore(packed)
    with first.image(7) as a, second.image(7) as b:
        assert a == b


def test_fresh_store_sees_a_database_packed_anew(coco_files, packed):
    assert len(open_store(packed)) == 8
    kept = [i for i in coco_files.content()['images'] if i['id'] in (7, 139)]
    annotations = [a for a in coco_files.content()['annotations'] if a['image_id'] in (7, 139)]
    coco_files.rewrite(images=kept, annotations=annotations)
    pack_coco(*coco_files, packed, overwrite=True)
    assert len(open_store(packed)) == 8
    assert len(open_store(packed, fresh=True)) == 2


def test_reading_leaves_no_file_behind(packed):
    CocoStore(packed).to_coco()
    assert os.listdir(packed) == ['data.mdb']


def test_missing_database_says_how_to_pack(tmp_path):
    with pytest.raises(BpuError, match='no packed COCO data set at .*nowhere.*pack_coco_lmdb.py'):
        len(CocoStore(tmp_path / 'nowhere'))
    with pytest.raises(BpuError, match='no data.mdb in it'):
        len(CocoStore(tmp_path))


@pytest.mark.parametrize('content', [b'', b'hello', bytes(range(256)) * 160],
                         ids=['empty', 'short', 'long'])
def test_file_that_is_no_lmdb_is_refused(tmp_path, content):
    (tmp_path / 'data.mdb').write_bytes(content)
    with pytest.raises(BpuError, match='cannot be opened as an LMDB database'):
        len(CocoStore(tmp_path))


def test_foreign_lmdb_is_refused(tmp_path):
    edit(tmp_path / 'foreign', b'some key', b'some value')
    with pytest.raises(BpuError, match="without a packed COCO data set.*no 'meta' record"):
        len(CocoStore(tmp_path / 'foreign'))
    edit(tmp_path / 'foreign', b'meta', b'{"version": 3}')
    with pytest.raises(BpuError, match="'meta' record is not one of a packed COCO"):
        len(CocoStore(tmp_path / 'foreign'))
    edit(tmp_path / 'foreign', b'meta', encode_record(b'meta', b'{"version": 3}'))
    with pytest.raises(BpuError, match="does not hold format 'mmdet_bpu.coco_lmdb'"):
        len(CocoStore(tmp_path / 'foreign'))


@pytest.mark.parametrize('share', [0.2, 0.5, 0.99])
def test_truncated_database_is_refused(packed, share):
    size = (packed / 'data.mdb').stat().st_size
    os.truncate(packed / 'data.mdb', int(size * share))
    with pytest.raises(BpuError, match=f'data.mdb is truncated: {size} bytes expected'):
        len(CocoStore(packed))


def test_database_without_its_last_record_is_refused(packed):
    edit(packed, b'meta', None)
    with pytest.raises(BpuError, match='packing stopped before its end'):
        len(CocoStore(packed))


def test_lost_record_is_noticed_when_opened(packed):
    edit(packed, image_key(7), None)
    with pytest.raises(BpuError, match='should hold 31 records, found 30.*--verify'):
        len(CocoStore(packed))


def test_newer_schema_is_refused(packed):
    edited_meta(packed, version=3)
    with pytest.raises(BpuError, match='schema version 3.*reads version 2: update'):
        len(CocoStore(packed))


def test_older_schema_is_refused(packed):
    edited_meta(packed, version=1)
    with pytest.raises(BpuError, match='version 1.*reads version 2: pack the data set again'):
        len(CocoStore(packed))


def test_flipped_byte_names_the_image(coco_files, packed):
    with CocoStore(packed).image(25) as content:
        value = bytearray(encode_record(image_key(25), bytes(content)))
    value[100] ^= 1
    edit(packed, image_key(25), bytes(value))
    store = CocoStore(packed)
    with pytest.raises(BpuError, match=r'image 25 is damaged.*--verify .*packed_lmdb'):
        with store.image(25):
            pass
    with store.image(7):
        pass


def test_record_under_a_wrong_key_does_not_pass(packed):
    with lmdb.open(str(packed), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            value = transaction.get(image_key(7))
    edit(packed, image_key(139), value)
    with pytest.raises(BpuError, match='image 139 is damaged'):
        with CocoStore(packed).image(139):
            pass


def test_unknown_image_is_named(packed):
    with pytest.raises(BpuError, match='there is no image 8 in this database'):
        with CocoStore(packed).image(8):
            pass


def test_meta_describes_counts_and_source(coco_files, packed):
    import hashlib
    meta = CocoStore(packed).meta
    size = sum((coco_files.img_dir / i['file_name']).stat().st_size
               for i in coco_files.content()['images'])
    assert meta['counts'] == dict(
        images=8, annotations=12, categories=3, image_bytes=size, records=31)
    assert meta['source'] == dict(
        annotation_file='instances.json', image_folder='images', subset=None,
        annotation_sha256=hashlib.sha256(coco_files.ann_file.read_bytes()).hexdigest())
    assert str(coco_files.img_dir) not in json.dumps(meta)


def test_first_file_name_that_there_is_gives_the_image(packed):
    store = CocoStore(packed)
    assert store.image_id_of('deep/er/c.jpg') == 2**40
    assert store.image_id_of('images/b.png', 'b.png', 'a.jpg') == 7
    assert store.image_id_of('c.jpg', 'er/c.jpg') is None
    assert store.image_id_of() is None


def test_file_name_of_two_images_gives_the_first_id(coco_files, tmp_path):
    images = coco_files.content()['images']
    images[0]['file_name'] = images[1]['file_name']
    coco_files.rewrite(images=images)
    pack_coco(*coco_files, tmp_path / 'twins_lmdb')
    assert CocoStore(tmp_path / 'twins_lmdb').image_id_of('b.png') == 7


def test_file_names_of_one_hash_are_told_apart(packed):
    with CocoStore(packed).read(b'index/files') as record:
        hashes, ids = (record[:64].cast('q').tolist(), record[64:].cast('q').tolist())
    at = ids.index(139)
    assert at > 0
    hashes[at - 1] = hashes[at]  # another image comes first under the hash of 'a.jpg'
    content = b''.join(number.to_bytes(8, 'little', signed=True) for number in hashes + ids)
    edit(packed, b'index/files', encode_record(b'index/files', content))
    assert CocoStore(packed).image_id_of('a.jpg') == 139


def test_flipped_byte_in_the_names_is_not_a_lost_image(packed):
    with CocoStore(packed).read(b'index/files') as record:
        value = bytearray(encode_record(b'index/files', bytes(record)))
    value[3] ^= 1
    edit(packed, b'index/files', bytes(value))
    store = CocoStore(packed)
    for _ in range(2):
        with pytest.raises(BpuError, match="record 'index/files' is damaged"):
            store.image_id_of('a.jpg')
