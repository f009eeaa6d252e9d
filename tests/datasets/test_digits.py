"""The embedded digits set: what `make demo` trains on is real, disjoint, tight and repeatable."""
import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from mmdet_bpu.datasets import digits as digits_module
from mmdet_bpu.datasets.digits import (CLASSES, DIGIT_SIZE, DIGITS_PER_IMAGE, IMAGE_SIZE,
                                       MAX_OVERLAP, compose_image, digit_pools, make_digits)
from mmdet_bpu.errors import BpuError

NUM_TRAIN, NUM_VAL = 30, 10


def digest(folder):
    """Path inside the folder -> SHA-256 of the file."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_digits(tmp_path_factory.mktemp('data') / 'digits', 0, NUM_TRAIN, NUM_VAL)


def load(made, split):
    return json.loads((made / 'annotations' / f'{split}.json').read_text())


def test_same_arguments_give_the_same_bytes(made, tmp_path):
    again = make_digits(tmp_path / 'again', 0, NUM_TRAIN, NUM_VAL)
    assert digest(again) == digest(made)


def test_another_seed_gives_other_images(made, tmp_path):
    other = digest(make_digits(tmp_path / 'other', 1, 3, 2))
    assert not set(other.values()) & set(digest(made).values())


def test_a_smaller_set_is_a_prefix_of_a_larger_one(made, tmp_path):
    smaller = make_digits(tmp_path / 'smaller', 0, 5, 2)
    larger = digest(made)
    for path, value in digest(smaller).items():
        if path.endswith('.jpg'):
            assert larger[path] == value


def test_pools_cover_every_scan_once_and_every_class():
    pools = digit_pools(0)
    assert sorted(np.concatenate([pools['train'], pools['val']])) == list(range(1797))
    target = load_digits().target
    for label in range(10):
        share = (target[pools['val']] == label).sum() / (target == label).sum()
        assert 0.15 < share < 0.25


def test_no_scan_is_seen_in_both_splits(made):
    train, val = ({a['scan'] for a in load(made, split)['annotations']}
                  for split in ('train', 'val'))
    assert train and val and not train & val


def test_annotated_class_is_the_label_of_the_scan(made):
    coco = load(made, 'train')
    names = {category['id']: category['name'] for category in coco['categories']}
    target = load_digits().target
    assert list(names.values()) == list(CLASSES)
    for annotation in coco['annotations']:
        assert names[annotation['category_id']] == str(target[annotation['scan']])


@pytest.mark.parametrize('split, count', [('train', NUM_TRAIN), ('val', NUM_VAL)])
def test_annotations_are_valid_coco(made, split, count):
    coco = COCO(str(made / 'annotations' / f'{split}.json'))
    assert len(coco.getImgIds()) == count and len(coco.getCatIds()) == 10
    assert len({a['id'] for a in coco.dataset['annotations']}) == len(coco.dataset['annotations'])
    for image in coco.dataset['images']:
        pixels = cv2.imread(str(made / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert len(list((made / split).iterdir())) == count
    per_image = Counter(a['image_id'] for a in coco.dataset['annotations'])
    assert set(per_image) == set(coco.getImgIds())
    assert all(DIGITS_PER_IMAGE[0] <= n <= DIGITS_PER_IMAGE[1] for n in per_image.values())
    for annotation in coco.dataset['annotations']:
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0 and x + width <= IMAGE_SIZE and y + height <= IMAGE_SIZE
        assert annotation['area'] == width * height and annotation['iscrowd'] == 0
        assert DIGIT_SIZE[0] - 2 <= max(width, height) <= DIGIT_SIZE[1]


def test_boxes_are_tight_around_the_changed_pixels():
    scans, pool = load_digits(), digit_pools(0)['train']
    for index in range(40):
        image, background, placed = compose_image(np.random.default_rng(index), pool, scans)
        changed = (image != background).any(axis=2)
        inside = np.zeros_like(changed)
        for _, (x, y, width, height) in placed:
            inside[y:y + height, x:x + width] = True
            box = changed[y:y + height, x:x + width]
            for side in (box[0], box[-1], box[:, 0], box[:, -1]):
                assert side.any()
        assert not (changed & ~inside).any()


def test_digits_overlap_little_and_stand_out():
    scans, pool = load_digits(), digit_pools(0)['train']
    for index in range(40):
        image, background, placed = compose_image(np.random.default_rng(index), pool, scans)
        area = np.zeros(image.shape[:2], int)
        for _, (x, y, width, height) in placed:
            covered = area[y:y + height, x:x + width].astype(bool).sum()
            assert covered <= MAX_OVERLAP * len(placed) * width * height
            area[y:y + height, x:x + width] += 1
            difference = np.abs(image.astype(int) - background).mean(axis=2)
            assert difference[y:y + height, x:x + width].max() > 40


def test_backgrounds_vary():
    backgrounds = [digits_module.paint_background(np.random.default_rng(i)) for i in range(60)]
    means = np.array([image.mean(axis=(0, 1)) for image in backgrounds])
    spreads = np.array([image.std(axis=(0, 1)).mean() for image in backgrounds])
    assert (means.std(axis=0) > 25).all()
    assert spreads.min() < 10 and spreads.max() > 25


def test_a_second_call_reuses_the_set_and_says_so(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    make_digits(made, 0, NUM_TRAIN, NUM_VAL)
    assert 'reusing' in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob('*')}


def test_other_arguments_on_an_existing_set_are_refused(made):
    with pytest.raises(BpuError, match="'seed': 0.*wanted.*'seed': 7"):
        make_digits(made, 7, NUM_TRAIN, NUM_VAL)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('keep')
    with pytest.raises(BpuError, match='no digits.json'):
        make_digits(tmp_path, 0, 2, 2)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_a_missing_image_is_noticed(tmp_path):
    out = make_digits(tmp_path / 'digits', 0, 3, 2)
    (out / 'train' / '000001.jpg').unlink()
    with pytest.raises(BpuError, match='holds 2 images, expected 3'):
        make_digits(out, 0, 3, 2)


def test_an_interrupted_run_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    calls = []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compose_image(*args)

    with monkeypatch.context() as patch:
        patch.setattr(digits_module, 'compose_image', interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_digits(tmp_path / 'digits', 0, 4, 2)
    assert not (tmp_path / 'digits').exists()
    make_digits(tmp_path / 'digits', 0, 4, 2)
    assert [path.name for path in tmp_path.iterdir()] == ['digits']


@pytest.mark.parametrize('arguments, name', [((-1, 2, 2), 'seed'), ((0, 0, 2), 'num_train'),
                                             ((0, 2, 0), 'num_val')])
def test_bad_counts_are_refused_by_name(tmp_path, arguments, name):
    with pytest.raises(BpuError, match=name):
        make_digits(tmp_path / 'digits', *arguments)
