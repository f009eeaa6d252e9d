"""Records with right checksums and wrong content are refused by name, before they are used."""
import json
import shutil

import lmdb
import pytest

from mmdet_bpu.datasets import (CocoLMDBBackend, CocoLMDBDataset, CocoStore, coco_api, pack_coco)
from mmdet_bpu.datasets.lmdb_format import encode_json, encode_record
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError

DEEP = b'[' * 100_000 + b']' * 100_000
NO_JSON = [b'', b'\xff\xfe', b'{', b'nul', b'9' * 5000, DEEP, b'[]', b'{}', b'"x"', b'7', b'null']
IMAGE = b'%019d' % 139


@pytest.fixture(scope='module')
def whole(make_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('hostile')
    pack_coco(*make_coco(folder / 'coco'), folder / 'lmdb', processes=1)
    return folder / 'lmdb'


@pytest.fixture
def packed(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / 'packed_lmdb')


@pytest.fixture
def write(packed):
    """Put a payload under a key, with its checksum: ``write(key, payload) -> path``."""
    def put(key, payload):
        with lmdb.open(str(packed), lock=False, map_size=1 << 26) as environment:
            with environment.begin(write=True) as transaction:
                transaction.put(key, encode_record(key, payload))
        return str(packed)
    return put


def changed(content, path, value):
    """A copy with the value at a path (``...``: without it)."""
    content = json.loads(json.dumps(content))
    parent = content
    for step in path[:-1]:
        parent = parent[step]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return encode_json(content)


def read_everything(path):
    dataset = CocoLMDBDataset(lmdb=path, test_mode=True)
    for index in range(len(dataset)):
        dataset.get_data_info(index)
    coco_api(path)
    CocoStore(path).read_sha256()
    backend = CocoLMDBBackend(path)
    assert backend.get('images/a.jpg')
    assert json.loads(backend.get_text('instances.json'))


def refusal(path, read=read_everything):
    """What is said when it is read."""
    with pytest.raises(BpuError) as caught:
        read(path)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize('key', [b'coco', b'meta', b'instances/' + IMAGE, b'json/' + IMAGE])
@pytest.mark.parametrize('payload', NO_JSON, ids=lambda payload: repr(payload[:5]))
def test_record_that_is_no_json_or_none_of_its_kind_is_named(write, key, payload):
    name = {b'coco': "record 'coco' is not what a packer", b'meta': "meta", b'json/' + IMAGE:
            'annotation record of image 139 is not what a packer'}.get(
                key, 'instance record of image 139 is not what a packer')
    path = write(key, payload)
    if key == b'meta' and payload in (b'{}', b'[]', b'"x"', b'7', b'null'):
        name = 'does not hold format'
    assert name in refusal(path)


META = [
    (['shards'], 10**9, 'shards: expected 1 to 1000'), (['shards'], 0, 'shards'),
    (['shards'], True, 'shards'), (['shards'], ..., 'shards'), (['shards'], '1', 'shards'),
    (['version'], 3, 'version 3'), (['version'], [2], 'version'), (['counts'], 7, 'counts'),
    (['counts', 'images'], 10**15, 'counts.records'), (['counts', 'images'], -1, 'counts.images'),
    (['counts', 'records'], 8.0, 'counts.records'), (['counts', 'categories'], 10**12, '.coco'),
    (['counts', 'annotations'], None, 'counts.annotations'),
    (['counts', 'image_bytes'], 'x', 'counts.image_bytes'), (['source'], [], 'source'),
    (['source', 'annotation_file'], 7, 'source.annotation_file'), (['report'], None, 'report'),
    (['report', 'notices'], dict(x=dict(count='y', first=[])), 'report.notices'),
    (['report', 'skipped'], [dict(id=1)], 'report.skipped'), (['images_sha256'], 7, 'images_sha')]


@pytest.mark.parametrize('place, value, name', META, ids=str)
def test_meta_that_is_not_of_the_schema_is_named(packed, write, place, value, name):
    path = write(b'meta', changed(CocoStore(packed).meta, place, value))
    message = refusal(path)
    assert name in message or 'list of 1000000000000 categories' in message


def test_shards_that_are_not_there_are_named(packed, write):
    meta = dict(CocoStore(packed).meta, shards=900)
    meta['counts']['records'] = 2 * 8 + 7
    path = write(b'meta', encode_json(meta))
    assert 'should hold 23 records, found 31' in refusal(path)


SAMPLE = [
    (['file_name'], 7), (['file_name'], ''), (['file_name'], 'a\0b'), (['width'], 0),
    (['width'], 2**40), (['height'], 1.5),
    (['height'], 'x'), (['instances'], {}), (['instances', 0], 7), (['instances', 0, 'bbox'], [1]),
    (['instances', 0, 'bbox'], [0, 0, 1e300, 1]), (['instances', 0, 'bbox', 2], 'x'),
    (['instances', 0, 'bbox', 2], None), (['instances', 0, 'bbox'], ...),
    (['instances', 0, 'category_id'], 2**130), (['instances', 0, 'mask'], 2**130),
    (['instances', 0, 'category_id'], [1]), (['instances', 0, 'category_id'], ...),
    (['instances', 0, 'ignore_flag'], 2), (['instances', 0, 'ignore_flag'], [])]


@pytest.mark.parametrize('place, value', SAMPLE, ids=str)
def test_sample_that_is_not_of_the_schema_is_named(packed, write, place, value):
    path = write(b'instances/' + IMAGE, changed(CocoStore(packed).instances(139), place, value))
    assert 'instance record of image 139 is not what' in refusal(path)


ENTRY = [
    (['image'], None), (['image', 'id'], 7), (['image', 'id'], 139.0), (['image', 'width'], 2**31),
    (['image', 'file_name'], []), (['image', 'file_name'], 'a\0b'), (['annotations'], {}),
    (['annotations', 0], 3),
    (['annotations', 0, 'image_id'], 7), (['annotations', 0, 'id'], [1]),
    (['annotations', 0, 'bbox'], 'abcd'), (['annotations', 0, 'area'], None),
    (['annotations', 0, 'iscrowd'], 'no'), (['annotations', 0, 'category_id'], {})]


@pytest.mark.parametrize('place, value', ENTRY, ids=str)
def test_entries_that_are_not_of_the_schema_are_named(packed, write, place, value):
    image, annotations = CocoStore(packed).annotations(139)
    record = dict(image=image, annotations=annotations)
    path = write(b'json/' + IMAGE, changed(record, place, value))
    assert 'annotation record of image 139 is not what' in refusal(path)


@pytest.mark.parametrize('key', [b'index/categories', b'index/files', b'index/ids',
                                 b'index/images', b'index/sha256'])
@pytest.mark.parametrize('change', [
    lambda payload: b'', lambda payload: payload[:-1], lambda payload: payload + bytes(24),
    lambda payload: payload * 2], ids=['empty', 'cut', 'longer', 'twice'])
def test_index_of_another_length_than_the_images_need_is_named(packed, write, key, change):
    with CocoStore(packed).read(key) as payload:
        payload = bytes(payload)
    path = write(key, change(payload))
    assert f"record '{key.decode()}' is not what a packer writes (expected" in refusal(path)


@pytest.mark.parametrize('column, value', [
    ('id', -1), ('id', 7), *((side, value) for side in ('width', 'height')
                             for value in (-1, 0, 2**31, 2**62))])
def test_index_of_impossible_images_is_refused(packed, write, column, value):
    with CocoStore(packed).read(b'index/images') as payload:
        payload = bytearray(payload)
    at = ['id', 'width', 'height'].index(column) * 8
    payload[at:at + 8] = value.to_bytes(8, 'little', signed=True)
    path = write(b'index/images', bytes(payload))
    assert "record 'index/images' is not what a packer writes (expected" in refusal(path)


@pytest.mark.parametrize('key', [b'index/categories', b'index/files', b'index/ids',
                                 b'index/sha256'])
def test_index_that_does_not_follow_from_the_annotations_is_found_by_verifying(
        packed, write, key):
    with CocoStore(packed).read(key) as payload:
        payload = bytearray(payload)
    payload[3] ^= 64
    path = write(key, bytes(payload))
    message = refusal(path, verify_database)
    assert f"record '{key.decode()}' is not made of" in message or 'SHA-256' in message


@pytest.mark.parametrize('key', [b'coco', b'meta', b'instances/' + IMAGE, b'json/' + IMAGE,
                                 b'index/images', b'index/files'])
def test_verifying_says_it_in_words_too(write, key):
    refusal(write(key, DEEP), verify_database)


def test_records_in_another_spelling_are_read(packed, write):
    """By a packer in another language: the same JSON with spaces."""
    image, annotations = CocoStore(packed).annotations(139)
    path = write(b'json/' + IMAGE, json.dumps(
        dict(annotations=annotations, image=image), indent=1).encode())
    text = CocoLMDBBackend(path).get_text('instances.json')
    assert [a for a in json.loads(text)['annotations'] if a['image_id'] == 139] == annotations
