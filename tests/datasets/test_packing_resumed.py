"""An interrupted packing goes on to what an uninterrupted one gives, or says why it cannot."""
import os

import lmdb
import pytest

from mmdet_bpu.datasets import lmdb_packer, pack_coco
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            return dict(transaction.cursor())


@pytest.fixture
def target(tmp_path):
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'train_lmdb'


@pytest.fixture
def partial(target):
    return target.with_name('train_lmdb.partial')


@pytest.fixture
def pack_but_for_the_name(coco_files, target, monkeypatch):
    """Packing that is interrupted when all is written: ``pack_but_for_the_name(**options)``."""

    def pack(**options):
        with monkeypatch.context() as patch:
            patch.setattr(lmdb_packer, 'move_into_place', interrupted)
            with pytest.raises(KeyboardInterrupt):
                pack_coco(*coco_files, target, **options)

    return pack


def interrupted(*_):
    raise KeyboardInterrupt


def assert_same_as_uninterrupted(coco_files, target, **options):
    pack_coco(*coco_files, target, resume=True, **options)
    pack_coco(*coco_files, target.with_name('whole'), **options)
    assert records(target) == records(target.with_name('whole'))


@pytest.mark.parametrize('change, words', [
    (dict(annotations=[]), 'annotation_sha256 was .*, is '),
    (dict(subset=7), 'subset was None, is 7'),
    (dict(shards=2), 'shards was 1, is 2'),
    (dict(name='other.json'), "annotation_file was 'instances.json', is 'other.json'"),
    (dict(folder='other'), "image_folder was 'images', is 'other'"),
])
def test_other_input_is_refused_with_what_differs(
        coco_files, target, pack_but_for_the_name, change, words):
    pack_but_for_the_name()
    img_dir, ann_file = coco_files
    before = ann_file.read_text()
    if 'annotations' in change:
        coco_files.rewrite(annotations=change['annotations'])
    if 'name' in change:
        ann_file = ann_file.rename(ann_file.with_name(change['name']))
    if 'folder' in change:
        img_dir = img_dir.rename(img_dir.with_name(change['folder']))
    options = {key: value for key, value in change.items() if key in ('subset', 'shards')}
    with pytest.raises(BpuError, match=f'cannot resume .*partial, it was begun from other input .*'
                       f'{words}.*: give the same, or start over with parameter overwrite=True'):
        pack_coco(img_dir, ann_file, target, resume=True, **options)
    ann_file.rename(coco_files.ann_file).write_text(before)
    img_dir.rename(coco_files.img_dir)
    assert_same_as_uninterrupted(coco_files, target)


@pytest.mark.parametrize('check', ['none', 'header', 'decode'])
def test_damaged_record_is_read_again_from_its_file(
        coco_files, target, partial, pack_but_for_the_name, check):
    pack_but_for_the_name(check_images=check)
    content = bytearray((partial / 'data.mdb').read_bytes())
    place = content.index((coco_files.img_dir / 'only_bird.jpg').read_bytes())
    content[place + 300] ^= 1
    (partial / 'data.mdb').write_bytes(content)
    assert_same_as_uninterrupted(coco_files, target, check_images=check)


@pytest.mark.parametrize('share', [0, 0.07, 0.5, 0.99])
def test_file_that_is_cut_off_is_begun_anew(
        coco_files, target, partial, pack_but_for_the_name, share):
    pack_but_for_the_name()
    size = (partial / 'data.mdb').stat().st_size
    os.truncate(partial / 'data.mdb', int(size * share))
    assert_same_as_uninterrupted(coco_files, target)


def test_damaged_page_is_said_and_overwritten(coco_files, target, partial, pack_but_for_the_name):
    pack_but_for_the_name()
    content = bytearray((partial / 'data.mdb').read_bytes())
    for page in range(2 * 4096, len(content), 4096):
        if int.from_bytes(content[page + 10:page + 12], 'little') in (1, 2):
            content[page + 10] = 0  # no branch or leaf of the tree any more: LMDB refuses the page
    (partial / 'data.mdb').write_bytes(content)
    with pytest.raises(BpuError, match=r'partial is damaged, LMDB reports .*: start over with '
                       'parameter overwrite=True'):
        pack_coco(*coco_files, target, resume=True)
    pack_coco(*coco_files, target, overwrite=True)
    assert verify_database(target)['counts']['images'] == 8


def test_images_skipped_before_and_readable_now_are_packed(
        coco_files, target, pack_but_for_the_name):
    path = coco_files.img_dir / 'tiny.jpg'
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    pack_but_for_the_name(on_error='skip')
    path.write_bytes(whole)
    assert_same_as_uninterrupted(coco_files, target)


def test_images_packed_before_and_missing_now_are_skipped(
        coco_files, target, pack_but_for_the_name):
    pack_but_for_the_name()
    (coco_files.img_dir / 'tiny.jpg').unlink()
    assert_same_as_uninterrupted(coco_files, target, on_error='skip')


def test_stopped_before_it_has_looked_at_what_is_there_it_keeps_that(
        coco_files, target, partial, pack_but_for_the_name, monkeypatch):
    pack_but_for_the_name()
    before = records(partial)
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_packer._Packing, '_take_stored', interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack_coco(*coco_files, target, resume=True)
    assert records(partial) == before
    assert_same_as_uninterrupted(coco_files, target)
