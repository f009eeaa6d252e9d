"""Images and annotations that are wrong are named, and left out only when told."""
import json
import os
import signal
import threading
import time

import pytest

from mmdet_bpu.datasets import CocoStore, image_readers, lmdb_packer, pack_coco
from mmdet_bpu.datasets.coco_source import CocoSource
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError


def replaced_by(make):
    def spoil(path):
        path.unlink()
        make(path)
    return spoil


UNUSABLE = {
    'empty': (lambda path: path.write_bytes(b''), 'is an empty file'),
    'html': (lambda path: path.write_text('<html>404</html>'), 'is not a readable image'),
    'cut': (lambda path: os.truncate(path, path.stat().st_size // 2), 'is truncated'),
    'folder': (replaced_by(os.mkdir), 'is missing'),
    'FIFO': (replaced_by(os.mkfifo), 'is missing'),
    'dangling link': (replaced_by(lambda path: path.symlink_to('nowhere')), 'is missing'),
    'circle of links': (replaced_by(lambda path: path.symlink_to(path)), 'is missing'),
}


@pytest.mark.parametrize('shards', [1, 3])
@pytest.mark.parametrize('kind', UNUSABLE)
def test_unusable_file_is_named_and_skipped_only_when_told(coco_files, tmp_path, kind, shards):
    spoil, reason = UNUSABLE[kind]
    spoil(coco_files.img_dir / 'a.jpg')
    out = tmp_path / 'train_lmdb'
    with pytest.raises(BpuError, match=r"a\.jpg.*parameter on_error='skip'"):
        pack_coco(*coco_files, out, shards=shards)
    assert not out.exists()
    meta = pack_coco(*coco_files, out, shards=shards, on_error='skip', overwrite=True)
    [skipped] = meta['report']['skipped']
    assert (skipped['id'], skipped['file_name']) == (139, 'a.jpg')
    assert skipped['reason'].startswith(reason)
    assert verify_database(out) == meta
    content, found = coco_files.content(), CocoStore(out).to_coco()
    assert found['images'] == [image for image in content['images'] if image['id'] != 139]
    assert {annotation['id'] for annotation in found['annotations']} == {
        annotation['id'] for annotation in content['annotations'] if annotation['image_id'] != 139}
    assert meta['counts']['images'] == len(found['images']) == 7
    assert meta['counts']['annotations'] == len(found['annotations'])
    for image in found['images']:
        with CocoStore(out).image(image['id']) as stored:
            assert stored == (coco_files.img_dir / image['file_name']).read_bytes()


def test_file_that_goes_away_while_packing_is_named(coco_files, tmp_path, monkeypatch):
    class Source(CocoSource):
        @classmethod
        def read(cls, *arguments):
            source = super().read(*arguments)
            (coco_files.img_dir / 'a.jpg').unlink()
            return source

    monkeypatch.setattr(lmdb_packer, 'CocoSource', Source)
    with pytest.raises(BpuError, match=r'a\.jpg cannot be read \(No such file or directory\)'):
        pack_coco(*coco_files, tmp_path / 'train_lmdb')


def test_reader_that_is_killed_is_said_with_its_files(coco_files, tmp_path, monkeypatch):
    def report_and_wait(*_):
        (tmp_path / 'new').write_text(str(os.getpid()))
        (tmp_path / 'new').rename(tmp_path / 'pid')
        signal.pause()

    def kill():
        while not (tmp_path / 'pid').exists():
            time.sleep(0.01)
        os.kill(int((tmp_path / 'pid').read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with monkeypatch.context() as patch:
        patch.setattr(image_readers, '_read_batch', report_and_wait)
        killer.start()
        with pytest.raises(BpuError, match='a reader process was ended by SIGKILL at one of 8 '
                           'images from .*/empty.jpg to .*/deep/er/c.jpg; try'):
            pack_coco(*coco_files, tmp_path / 'train_lmdb')
    killer.join()
    pack_coco(*coco_files, tmp_path / 'train_lmdb')
    assert verify_database(tmp_path / 'train_lmdb')['counts']['images'] == 8


def test_annotation_of_no_image_is_left_out_only_when_told(coco_files, tmp_path):
    annotations = coco_files.content()['annotations']
    annotations[3]['image_id'] = 4711
    coco_files.rewrite(annotations=annotations)
    out = tmp_path / 'train_lmdb'
    with pytest.raises(BpuError, match=r"4 \(image_id 4711\).*parameter on_error='skip'"):
        pack_coco(*coco_files, out)
    meta = pack_coco(*coco_files, out, on_error='skip')
    assert meta['counts'] == dict(meta['counts'], images=8, annotations=11)
    assert meta['report']['notices']['annotation points at no image, left out'] == dict(
        count=1, first=['4 (image_id 4711)'])
    assert 4 not in {annotation['id'] for annotation in CocoStore(out).to_coco()['annotations']}


def test_odd_boxes_and_categories_are_noted_and_packed_as_they_are(coco_files, tmp_path):
    boxes = {1: [5, 5, 0, 10], 2: [5, 5, 10, -3], 3: [64, 0, 5, 5], 4: [-9, 3, 9, 9],
             5: [50, 40, 15.5, 8], 6: [-1.5, 0, 10, 10], 7: [-1, -1, 66, 50], 8: [0, 0, 64, 48],
             9: [1, 1, 9, 9]}
    coco_files.rewrite(annotations=[
        dict(id=number, image_id=139, category_id=99 if number == 9 else 3, bbox=box, area=1)
        for number, box in boxes.items()])
    out = tmp_path / 'train_lmdb'
    notices = pack_coco(*coco_files, out)['report']['notices']

    def noted(*numbers):
        return dict(count=len(numbers),
                    first=[f'annotation {number} of image 139' for number in numbers])

    assert notices['box is empty'] == noted(1, 2)
    assert notices['box is outside its image'] == noted(3, 4)
    assert notices['box reaches over the edge of its image'] == noted(5, 6)
    assert notices['annotation of an unknown category'] == noted(9)
    stored = {annotation['id']: annotation['bbox']
              for annotation in CocoStore(out).to_coco()['annotations']}
    assert stored == boxes


@pytest.mark.parametrize('check', ['header', 'decode'])
def test_other_size_and_other_format_are_noted(coco_files, tmp_path, check):
    images = coco_files.content()['images']
    sizes = {'a.jpg': (65, 48), 'rotated.jpg': (30, 60), 'tiny.jpg': (20, 91)}
    for image in images:
        image['width'], image['height'] = sizes.get(
            image['file_name'], (image['width'], image['height']))
    coco_files.rewrite(images=images)
    notices = pack_coco(*coco_files, tmp_path / 'out', check_images=check)['report']['notices']
    assert notices['image has another size than the annotation file says'] == dict(
        count=2, first=['tiny.jpg', 'a.jpg'])  # rotated.jpg is turned by its EXIF orientation
    assert notices['image is not JPEG, stored as it is'] == dict(
        count=2, first=['b.png', 'grey.png'])


def refusal(coco_files, kind, changes):
    """What is said of the data set when entry 1 of ``kind`` is changed (None: field absent)."""
    entries = coco_files.content()[kind]
    entries[1] = {name: value for name, value in {**entries[1], **changes}.items()
                  if value is not None}
    coco_files.rewrite(**{kind: entries})
    with pytest.raises(BpuError) as caught:
        CocoSource.read(coco_files.ann_file, coco_files.img_dir)
    assert 'instances.json' in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('box', [
    [float('nan'), 1, 2, 3], [0, 0, float('inf'), 3], [10**400, 0, 1, 1], [0, 0, 1], {}, 'x'])
def test_box_that_is_not_four_numbers_is_named(coco_files, box):
    assert 'annotation 2: expected bbox [x, y, width, height] in px' in refusal(
        coco_files, 'annotations', dict(bbox=box))


@pytest.mark.parametrize('size', [
    0, -5, 48.5, float('nan'), float('inf'), 2**70, 1e300, '48', [48]])
def test_size_that_is_no_number_of_pixels_is_named(coco_files, size):
    for name in ('width', 'height'):
        assert f'images[1].{name}: expected a number of px' in refusal(
            coco_files, 'images', dict(width=4, height=4) | {name: size})


@pytest.mark.parametrize('kind, name', [
    ('images', 'id'), ('annotations', 'id'), ('annotations', 'image_id'),
    ('annotations', 'category_id'), ('categories', 'id')])
def test_id_that_is_no_number_is_named(coco_files, kind, name):
    for value in ([1], {}):
        assert f'{kind}[1].{name}: expected a number of 64 bits or a name' in refusal(
            coco_files, kind, {name: value})


@pytest.mark.parametrize('kind, name', [
    *(('images', name) for name in ('id', 'file_name', 'width', 'height')),
    *(('annotations', name) for name in ('id', 'image_id', 'category_id', 'bbox', 'area')),
    *(('categories', name) for name in ('id', 'name'))])
def test_missing_field_is_named(coco_files, kind, name):
    assert refusal(coco_files, kind, {name: None}).endswith(f'{kind}[1] lacks {name}')


@pytest.mark.parametrize('value', [7, '', ['a.jpg']])
def test_file_name_that_is_no_name_is_named(coco_files, value):
    assert 'images[1].file_name: expected a name' in refusal(
        coco_files, 'images', dict(file_name=value))


@pytest.mark.parametrize('name', ['no\0name/a.jpg', '\ud800/a.jpg', 'a.jpg/', 'x' * 5000])
def test_file_name_that_no_file_can_have_is_a_missing_image(coco_files, name):
    message = refusal(coco_files, 'images', dict(file_name=name))
    assert message.startswith('1 of 8 images named by ')
    assert f': {name}; add them' in message


def test_file_name_of_two_images_is_packed_for_both(coco_files, tmp_path):
    images = coco_files.content()['images']
    images[1]['file_name'] = images[0]['file_name']
    coco_files.rewrite(images=images)
    pack_coco(*coco_files, tmp_path / 'train_lmdb')
    for image_id in (139, 7):
        with CocoStore(tmp_path / 'train_lmdb').image(image_id) as content:
            assert content == (coco_files.img_dir / 'a.jpg').read_bytes()


def test_half_a_surrogate_pair_comes_back(coco_files, tmp_path):
    content = coco_files.content()
    content['annotations'][0]['caption'] = content['info']['note'] = 'é \ud83d \\ud83d "'
    coco_files.ann_file.write_text(json.dumps(content))
    pack_coco(*coco_files, tmp_path / 'train_lmdb')
    found = CocoStore(tmp_path / 'train_lmdb').to_coco()
    assert found['info'] == content['info']
    assert content['annotations'][0] in found['annotations']


@pytest.mark.parametrize('area', [[], 'large', {}])
def test_area_that_is_no_number_is_named(coco_files, area):
    assert 'annotation 2: expected area in square px' in refusal(
        coco_files, 'annotations', dict(area=area))


@pytest.mark.parametrize('mask', [2**70, 'text', [[1, 1, 2**64, 1, 3, 3]],
                                  dict(size=[4, 4], counts=[0, -2**70])])
def test_segmentation_that_no_reader_of_masks_takes_is_named(coco_files, mask):
    assert 'annotation 2: expected segmentation as polygons or a run-length' in refusal(
        coco_files, 'annotations', dict(segmentation=mask))


@pytest.mark.parametrize('mask', [None, [], [[1.5, 1, 9, 1, 3, 3]], [[float('nan'), 1]], [[[1]]],
                                  dict(size=[4, 4], counts=[0, 16]), dict(size=[4, 4], counts='0')])
def test_other_segmentations_are_packed(coco_files, tmp_path, mask):
    content = coco_files.content()
    content['annotations'][0]['segmentation'] = mask
    coco_files.ann_file.write_text(json.dumps(content))
    pack_coco(*coco_files, tmp_path / 'train_lmdb')
    found = CocoStore(tmp_path / 'train_lmdb').to_coco()['annotations']
    assert repr(content['annotations'][0]['segmentation']) in [
        repr(each.get('segmentation')) for each in found]


def test_name_of_a_category_that_is_no_name_is_named(coco_files):
    assert 'categories[1].name: expected a name, found 7' in refusal(
        coco_files, 'categories', dict(name=7))
