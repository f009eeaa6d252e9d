"""What the packing report says of annotations is what training and evaluation make of them."""
import json
import random

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

from mmdet_bpu.datasets import CocoLMDBDataset, CocoLMDBMetric, coco_api, pack_coco
from mmdet_bpu.datasets.coco_annotations import NO_CROWD_FLAG
from mmdet_bpu.datasets.coco_evaluation import (CATEGORY_ID, CATEGORY_ORDER, COUNTED_ONLY, ID_NAME,
                                                ID_ZERO, NOT_COUNTED)
from mmdet_bpu.datasets.dropped_annotations import DROPPED
from mmdet_bpu.errors import BpuError

CLASSES = ('dog', 'cat', 'bird')


def counted(notices, *kinds):
    return sum(notices[kind]['count'] for kind in kinds if kind in notices)


def annotations_of_all_sorts(number):
    """Boxes, areas, marks and categories at and around every bound of the reader."""
    rng = random.Random(number)
    sides = [-3, 0, 1e-200, 0.5, 1 - 1e-9, 1, 1.0000001, 7, 60, 64, 1e5]
    for n in range(1, number + 1):
        annotation = dict(
            id=n, image_id=139, category_id=rng.choice([3, 5, 18, 18.0, 4, 'cat']),
            bbox=[rng.choice([-9, -1, 0, 1e-9, 5, 47.5, 48, 63.5, 64, 1e9]),
                  rng.choice([-9, -0.5, 0, 5, 47.5, 48, 64]), rng.choice(sides),
                  rng.choice(sides)],
            area=rng.choice([-1, 0, 1e-300, 1, True, 900.5, 1e10, 2e10, 10**400]))
        for name, values in (('ignore', [0, 1, None, 'false', '', [0]]),
                             ('iscrowd', [0, 1, 1.0, True, False, None])):
            if rng.random() < 0.3:
                annotation[name] = rng.choice(values)
        yield annotation


def test_report_and_training_agree_for_every_annotation(coco_files, tmp_path):
    annotations = list(annotations_of_all_sorts(3000))
    coco_files.rewrite(annotations=annotations)
    notices = pack_coco(*coco_files, tmp_path / 'lmdb')['report']['notices']
    stock = CocoDataset(ann_file=str(coco_files.ann_file), metainfo=dict(classes=CLASSES),
                        data_prefix=dict(img=''), test_mode=True)
    ours = CocoLMDBDataset(lmdb=str(tmp_path / 'lmdb'), test_mode=True)
    assert ours[0]['instances'] == stock[0]['instances']
    kept = len(stock[0]['instances'])
    assert 100 < kept < 1500
    assert counted(notices, *DROPPED) == len(annotations) - kept
    assert all(kind in notices for kind in DROPPED)


def perfect_metric(metric, samples):
    """Metrics of detections that are the instances of the samples, and one that is none."""
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in samples:
        found = [*sample['instances'], dict(bbox=[1, 1, 3, 3], bbox_label=0)]
        boxes = np.array([i['bbox'] for i in found], np.float32).reshape(-1, 4)
        metric.process({}, [dict(
            img_id=sample['img_id'], ori_shape=(sample['height'], sample['width']),
            pred_instances=dict(bboxes=torch.from_numpy(boxes),
                                scores=torch.arange(len(boxes), 0, -1.),
                                labels=torch.tensor([i['bbox_label'] for i in found])))])
    return metric.evaluate(len(samples))


def changed(coco_files, **of_annotation):
    """One box of 40 x 40 px in image 139, with other values or (``...``) without them."""
    annotation = {**dict(id=1, image_id=139, category_id=3, bbox=[2, 2, 40, 40], area=1600,
                         iscrowd=0), **of_annotation}
    coco_files.rewrite(annotations=[
        {name: value for name, value in annotation.items() if value is not ...}])


def packed_map(coco_files, out):
    """mAP that perfect detections have, and the kinds of the report."""
    notices = pack_coco(*coco_files, out)['report']['notices']
    dataset = CocoLMDBDataset(lmdb=str(out), metainfo=dict(classes=CLASSES), test_mode=True)
    result = perfect_metric(CocoLMDBMetric(str(out), classwise=True), list(dataset))
    return result['coco/bbox_mAP'], notices


@pytest.mark.parametrize('iscrowd', [..., None, False, 0.0])
def test_annotation_without_crowd_flag_is_evaluated(coco_files, tmp_path, iscrowd):
    changed(coco_files, iscrowd=iscrowd)
    found, notices = packed_map(coco_files, tmp_path / 'lmdb')
    assert found == 1
    assert counted(notices, NO_CROWD_FLAG) == (iscrowd in (..., None))


@pytest.mark.parametrize('iscrowd', ['0', 'false', '', 'yes', 2, -1, 0.5, float('nan'), [], {}])
def test_crowd_flag_that_readers_disagree_on_is_refused(coco_files, tmp_path, iscrowd):
    changed(coco_files, iscrowd=iscrowd)
    with pytest.raises(BpuError, match=r'instances\.json: annotation 1: expected iscrowd to be 0'):
        pack_coco(*coco_files, tmp_path / 'lmdb', on_error='skip')
    assert [path.name for path in tmp_path.iterdir()] == ['coco']


@pytest.mark.parametrize('area', [float('nan'), float('inf'), -float('inf')])
def test_area_that_is_not_finite_is_refused(coco_files, tmp_path, area):
    changed(coco_files, area=area)
    with pytest.raises(BpuError, match='annotation 1: expected area in square px, found'):
        pack_coco(*coco_files, tmp_path / 'lmdb')


@pytest.mark.parametrize('value, kind', [
    (dict(id='abc'), ID_NAME), (dict(id=2**62 + 1), None), (dict(id=-4), None),
    (dict(id=1.5), None)], ids=str)
def test_odd_ids_of_annotations_are_evaluated(coco_files, tmp_path, value, kind):
    changed(coco_files, **value)
    found, notices = packed_map(coco_files, tmp_path / 'lmdb')
    assert found == 1
    assert counted(notices, ID_NAME, ID_ZERO) == (kind is not None)


@pytest.mark.parametrize('value, kind, expected', [
    (dict(id=0), ID_ZERO, 0), (dict(id=-0.0), ID_ZERO, 0),
    (dict(area=1e10 + 1), NOT_COUNTED, -1), (dict(area=0), COUNTED_ONLY, 0),
    (dict(ignore=1), COUNTED_ONLY, 0), (dict(bbox=[2, 2, 0.5, 40]), COUNTED_ONLY, 0)], ids=str)
def test_what_the_evaluator_treats_apart_is_named(coco_files, tmp_path, value, kind, expected):
    changed(coco_files, **value)
    found, notices = packed_map(coco_files, tmp_path / 'lmdb')
    stock = perfect_metric(CocoMetric(str(coco_files.ann_file)), list(CocoLMDBDataset(
        lmdb=str(tmp_path / 'lmdb'), metainfo=dict(classes=CLASSES), test_mode=True)))
    assert found == stock['coco/bbox_mAP'] == expected
    assert notices[kind]['first'] == [f"annotation {value.get('id', 1)} of image 139"]


@pytest.mark.parametrize('ids', [('x', 'y', 'z'), (1, 'y', 2.5), (1.0, 2.0, 3.0), (True, 2, 3)],
                         ids=str)
def test_categories_whose_ids_are_no_integers_are_evaluated(coco_files, tmp_path, ids):
    changed(coco_files, category_id=ids[1])
    coco_files.rewrite(categories=[dict(id=i, name=name) for i, name in zip(ids, CLASSES)])
    found, notices = packed_map(coco_files, tmp_path / 'lmdb')
    assert found == 1
    assert counted(notices, CATEGORY_ID) == sum(type(i) is not int for i in ids)


def test_order_of_categories_that_exchanges_names_is_noted(coco_files, tmp_path):
    notices = pack_coco(*coco_files, tmp_path / 'lmdb')['report']['notices']
    assert notices[CATEGORY_ORDER] == dict(count=1, first=['18, 3, 5'])


def test_categories_of_one_name_are_refused(coco_files, tmp_path):
    coco_files.rewrite(categories=[dict(id=1, name='dog'), dict(id=7, name='cat'),
                                   dict(id=9, name='dog')])
    with pytest.raises(BpuError, match="'dog' is the name of the categories 1, 9.*rename"):
        pack_coco(*coco_files, tmp_path / 'lmdb')


def test_database_of_an_earlier_packer_is_refused_before_it_is_used(
        coco_files, tmp_path, monkeypatch):
    """It packed such files as they were."""
    from mmdet_bpu.datasets import coco_annotations
    monkeypatch.setattr(coco_annotations, 'repeated_names', lambda _: {})
    coco_files.rewrite(categories=[dict(id=1, name='dog'), dict(id=3, name='cat'),
                                   dict(id=9, name='dog')])
    pack_coco(*coco_files, tmp_path / 'lmdb')
    path = str(tmp_path / 'lmdb')
    with pytest.raises(BpuError, match="'dog' is the name of the categories 1, 9"):
        CocoLMDBDataset(lmdb=path, metainfo=dict(classes=('dog', 'cat')))
    with pytest.raises(BpuError, match="'dog' is the name of the categories 1, 9"):
        CocoLMDBMetric(path).dataset_meta = dict(classes=('dog', 'cat'))
    CocoLMDBDataset(lmdb=path, metainfo=dict(classes=('cat', )))
    CocoLMDBMetric(path).dataset_meta = dict(classes=('cat', ))


def test_crowd_flags_of_an_earlier_packer_are_read_or_refused(coco_files, tmp_path, monkeypatch):
    from mmdet_bpu.datasets import coco_annotations, coco_source
    monkeypatch.setattr(coco_source, 'complete_crowd_flags', lambda *_: None)
    monkeypatch.setattr(coco_annotations, 'crowd_flag', lambda _: 0)
    for number, (value, flag) in enumerate([(..., 0), (None, 0), (True, 1)]):
        changed(coco_files, iscrowd=value)
        pack_coco(*coco_files, tmp_path / str(number))
        assert coco_api(tmp_path / str(number)).anns[1]['iscrowd'] == flag


def test_metric_refuses_classes_that_its_database_lacks(packed):
    with pytest.raises(BpuError, match=r"classes \['fish'\].* lacks: give it the database"):
        CocoLMDBMetric(str(packed)).dataset_meta = dict(classes=('dog', 'fish'))


def test_class_named_twice_is_refused(packed):
    with pytest.raises(BpuError, match='expected every name once'):
        CocoLMDBDataset(lmdb=str(packed), metainfo=dict(classes=('dog', 'dog')))


@pytest.mark.parametrize('check', ['header', 'decode'])
def test_size_that_training_will_not_see_is_noted(coco_files, tmp_path, check):
    """The file says 60 x 30 and an Exif orientation by which it is seen as 30 x 60."""
    notices = pack_coco(*coco_files, tmp_path / 'lmdb', check_images=check)['report']['notices']
    [kind] = [kind for kind in notices if 'Exif' in kind]
    assert notices[kind] == dict(count=1, first=['rotated.jpg'])
    images = coco_files.content()['images']
    rotated = next(image for image in images if image['file_name'] == 'rotated.jpg')
    rotated['width'], rotated['height'] = 30, 60
    coco_files.ann_file.write_text(json.dumps({**coco_files.content(), 'images': images}))
    notices = pack_coco(*coco_files, tmp_path / 'right', check_images=check)['report']['notices']
    assert not [kind for kind in notices if 'Exif' in kind]
