"""Damage anywhere in a database is said in words, and never taken for what was packed."""
import json
import multiprocessing
import random
import shutil
import signal
import struct
from concurrent.futures import ProcessPoolExecutor

import lmdb
import numpy as np
import pytest
from PIL import Image

from mmdet_bpu.datasets import CocoLMDBDataset, CocoStore, pack_coco
from mmdet_bpu.datasets.lmdb_environment import open_environment
from mmdet_bpu.datasets.lmdb_format import encode_json, encode_record
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.datasets.loading import LoadImageFromLMDB
from mmdet_bpu.errors import BpuError

FORK = multiprocessing.get_context('fork')
PATIENCE = 60  # s; verifying takes a tenth of a second
PAGE = 4096  # bytes
# Of a page's header in LMDB 0.9 (struct MDB_page): where its flags are, and what they mean.
FLAGS_AT, BRANCH, LEAF, OVERFLOW = 10, 1, 2, 4
PAGES_AT = 12  # how many pages the value of an overflow page takes


def records(file):
    with open_environment(str(file)).begin() as transaction:
        return dict(transaction.cursor())


def write_data_set(folder, number):
    rng = np.random.default_rng(number)
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(number):
        # Most images fit in a leaf of the tree, some have overflow pages of their own.
        size = (64, 48) if image_id % 4 == 0 else (8, 8)
        pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{image_id}.jpg')
        images.append(dict(id=image_id, file_name=f'{image_id}.jpg', width=size[0], height=size[1]))
        annotations += [dict(id=7 * image_id + n, image_id=image_id, category_id=1,
                             bbox=[n, n, 4, 4.5], area=18.0) for n in range(image_id % 7)]
    (folder / 'instances.json').write_text(json.dumps(dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='thing')])))
    return folder / 'images', folder / 'instances.json'


@pytest.fixture(scope='module', params=[8, 1000])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('damaged')
    pack_coco(*write_data_set(folder / 'coco', request.param), folder / 'whole')
    return folder / 'whole'


def pages_by_kind(content):
    """Places of the pages of an LMDB file."""
    kinds = {'header': [0, PAGE], 'branch': [], 'leaf': [], 'overflow': []}
    names = {BRANCH: 'branch', LEAF: 'leaf', OVERFLOW: 'overflow'}
    place = 2 * PAGE
    while place < len(content):
        flags, = struct.unpack_from('<H', content, place + FLAGS_AT)
        if flags in names:
            kinds[names[flags]].append(place)
        place += PAGE * (
            struct.unpack_from('<L', content, place + PAGES_AT)[0] if flags == OVERFLOW else 1)
    return kinds


def flip_bit(content, page, rng):
    content[page + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)


def flip_bit_of_the_page_header(content, page, rng):
    # That of the two headers of a file is longer than that of a page.
    content[page + rng.randrange(160 if page < 2 * PAGE else 40)] ^= 1 << rng.randrange(8)


def scramble_bytes(content, page, rng):
    for _ in range(20):
        content[page + rng.randrange(PAGE)] = rng.randrange(256)


def zero(content, page, rng):
    content[page:page + PAGE] = bytes(PAGE)


def fill(content, page, rng):
    content[page:page + PAGE] = rng.randbytes(PAGE)


def swap(content, page, rng):
    other = PAGE * rng.randrange(len(content) // PAGE)
    content[page:page + PAGE], content[other:other + PAGE] = (
        content[other:other + PAGE], content[page:page + PAGE])


def repeat_another(content, page, rng):
    other = PAGE * rng.randrange(len(content) // PAGE)
    content[page:page + PAGE] = content[other:other + PAGE]


DAMAGES = [flip_bit, flip_bit_of_the_page_header, scramble_bytes, zero, fill, swap, repeat_another]


def too_long(*_):
    raise TimeoutError


def verified(path):
    """None if the database is found whole, else what is said, in a limited time."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        verify_database(path)
    except BpuError as error:
        return str(error)
    finally:
        signal.alarm(0)


def read_image(path, image_id):
    with CocoStore(path).image(image_id):
        pass


def read_all(path):
    """Every record, read through the store as training does."""
    store = CocoStore(path)
    for image_id in store.read_index().ids.tolist():
        read_image(path, image_id)
        store.annotations(image_id)
    return records(path / 'data.mdb')


def in_a_process(function, *arguments):
    """What a function returns or raises; damaged pages may end its process."""
    with ProcessPoolExecutor(1, FORK) as pool:
        return pool.submit(function, *arguments).result(PATIENCE)


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize('kind', ['header', 'branch', 'leaf', 'overflow'])
def test_damaged_page_is_said_in_words_or_holds_nothing(whole, tmp_path, kind, damage):
    original = (whole / 'data.mdb').read_bytes()
    rng = random.Random(f'{kind} {damage.__name__} {len(original)}')
    path = tmp_path / 'damaged'
    path.mkdir()
    for _ in range(6):
        content = bytearray(original)
        damage(content, rng.choice(pages_by_kind(original)[kind]), rng)
        (path / 'data.mdb').write_bytes(content)
        words = verified(path)
        if words is None:
            assert in_a_process(read_all, path) == records(whole / 'data.mdb')
        else:
            assert words.startswith(str(path))


def test_file_cut_off_anywhere_is_refused(whole, tmp_path):
    original = (whole / 'data.mdb').read_bytes()
    rng = random.Random(0)
    path = tmp_path / 'damaged'
    path.mkdir()
    for size in (0, 1, PAGE - 1, PAGE, 2 * PAGE, len(original) - PAGE, len(original) - 1,
                 *(rng.randrange(len(original)) for _ in range(10))):
        (path / 'data.mdb').write_bytes(original[:size])
        assert any(words in verified(path) for words in (
            'cannot be opened', f'is truncated: {len(original)} bytes expected, {size} found'))
        with pytest.raises(BpuError):
            CocoLMDBDataset(lmdb=str(path))


def test_bytes_after_the_last_page_do_no_harm(whole, tmp_path):
    path = tmp_path / 'longer'
    shutil.copytree(whole, path)
    with open(path / 'data.mdb', 'ab') as file:
        file.write(bytes(3 * PAGE + 17))
    assert verified(path) is None
    assert read_all(path) == records(whole / 'data.mdb')


def edit(path, key, value):
    """Put a raw value (None: delete) with plain lmdb, as any other program could."""
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)


@pytest.mark.parametrize('key, words', [
    (b'image/%019d' % 139, 'image 139 is lost'),
    (b'instances/%019d' % 139, 'instance record of image 139 is lost')])
def test_lost_record_is_said_when_the_data_set_opens_and_named_when_it_is_read(
        packed, key, words):
    edit(packed / 'data.mdb', key, None)
    with pytest.raises(BpuError, match='should hold 31 records, found 30: it is damaged; check it '
                       'with: tools/pack_coco_lmdb.py --verify .*packed_lmdb'):
        CocoLMDBDataset(lmdb=str(packed))
    assert words in verified(packed)
    edit(packed / 'data.mdb', b'stranger', b'so that the count is right')
    data_set = CocoLMDBDataset(lmdb=str(packed), pipeline=[LoadImageFromLMDB()])
    with pytest.raises(BpuError, match=f'{words}, its record is damaged; check it .* --verify'):
        data_set[0]
    data_set[1]


def test_count_in_the_header_that_is_wrong_is_said_when_opened_and_when_verified(packed):
    content = bytearray((packed / 'data.mdb').read_bytes())
    counted = struct.pack('<Q', 31)
    for header in (0, PAGE):
        place = content.find(counted, header, header + 160)
        if place != -1:
            content[place] += 1
    (packed / 'data.mdb').write_bytes(content)
    with pytest.raises(BpuError, match='should hold 31 records, found 32: it is damaged'):
        CocoLMDBDataset(lmdb=str(packed))
    assert 'the header of data.mdb counts 32 records, it has 31' in verified(packed)


def test_flipped_byte_of_an_image_is_said_with_its_id_by_every_reader(coco_files, packed):
    content = bytearray((packed / 'data.mdb').read_bytes())
    content[content.index((coco_files.img_dir / 'a.jpg').read_bytes()) + 500] ^= 1
    (packed / 'data.mdb').write_bytes(content)
    words = 'image 139 is damaged: its checksum does not match its bytes'
    data_set = CocoLMDBDataset(lmdb=str(packed), pipeline=[LoadImageFromLMDB()])
    with pytest.raises(BpuError, match=f'packed_lmdb: {words}; check it with: '
                       'tools/pack_coco_lmdb.py --verify .*packed_lmdb'):
        data_set[0]
    data_set[1]
    assert words in verified(packed)


def test_page_that_lmdb_refuses_is_said_with_the_record(packed):
    content = bytearray((packed / 'data.mdb').read_bytes())
    for page in pages_by_kind(content)['leaf']:
        if b'image/%019d' % 139 in content[page:page + PAGE]:
            content[page + FLAGS_AT] = 0
    (packed / 'data.mdb').write_bytes(content)
    with pytest.raises(BpuError, match='cannot be read, LMDB reports .*; check it '
                       'with: .* --verify .*packed_lmdb'):
        in_a_process(read_image, packed, 139)
    assert 'LMDB reports' in verified(packed)


@pytest.fixture
def sharded(coco_files, tmp_path):
    pack_coco(*coco_files, tmp_path / 'sharded', shards=3)
    return tmp_path / 'sharded'


SHARDS = [f'images-{shard:05d}-of-00003.mdb' for shard in range(3)]


@pytest.mark.parametrize('name', SHARDS)
def test_missing_shard_is_named(sharded, name):
    (sharded / name).unlink()
    with pytest.raises(BpuError, match=rf'sharded lacks its file {name} .*copy all files'):
        CocoLMDBDataset(lmdb=str(sharded))
    assert f'lacks its file {name}' in verified(sharded)


def test_shard_of_another_place_or_packing_is_named(coco_files, sharded, tmp_path):
    foreign = f'{SHARDS[0]} belongs to another packing than data.mdb beside it'
    shutil.copy(sharded / SHARDS[1], sharded / SHARDS[0])
    with pytest.raises(BpuError, match=foreign):
        CocoLMDBDataset(lmdb=str(sharded))
    pack_coco(*coco_files, tmp_path / 'other', shards=3, subset=7)
    shutil.copy(tmp_path / 'other' / SHARDS[0], sharded / SHARDS[0])
    assert foreign in verified(sharded)


def test_cut_or_flipped_shard_is_named(coco_files, sharded):
    file = next(sharded / name for name in SHARDS
                if (coco_files.img_dir / 'a.jpg').read_bytes() in (sharded / name).read_bytes())
    content = bytearray(file.read_bytes())
    content[content.index((coco_files.img_dir / 'a.jpg').read_bytes()) + 500] ^= 1
    file.write_bytes(content)
    assert 'image 139 is damaged' in verified(sharded)
    file.write_bytes(content[:-PAGE])
    assert f'{file.name} is truncated' in verified(sharded)


@pytest.mark.parametrize('version, words', [
    (1, 'pack the data set again'), (3, 'update mmdet_bpu or pack the data set again'),
    (None, 'pack the data set again'), ('2', 'pack the data set again')])
@pytest.mark.parametrize('name', ['data.mdb', SHARDS[1]])
def test_other_schema_version_is_refused(sharded, name, version, words):
    meta = json.loads(records(sharded / name)[b'meta'][:-8])
    edit(sharded / name, b'meta', encode_record(b'meta', encode_json(
        {**meta, 'version': version})))
    with pytest.raises(BpuError, match=f'has schema version {version}, this mmdet_bpu reads '
                       f'version 2: {words}; '):
        CocoLMDBDataset(lmdb=str(sharded))
    assert f'has schema version {version}' in verified(sharded)
