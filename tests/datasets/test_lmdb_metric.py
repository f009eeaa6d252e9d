import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from mmdet_bpu.datasets import CocoLMDBDataset, coco_api, pack_coco
from mmdet_bpu.errors import BpuError


def fixed_predictions(dataset, seed=0):
    """Ground truth, moved and mixed with wrong boxes, as a detector's samples."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        truth = info['instances']
        boxes = np.array([t['bbox'] for t in truth] or np.zeros((0, 4)), dtype=np.float32)
        labels = np.array([t['bbox_label'] for t in truth], dtype=np.int64)
        moved = boxes + rng.normal(0, 4, boxes.shape).astype(np.float32)
        wrong = rng.uniform(0, 60, (5, 2)).astype(np.float32)
        wrong = np.concatenate([wrong, wrong + 30], axis=1)
        labels = np.concatenate(
            [labels, labels, rng.integers(0, len(dataset.metainfo['classes']), 5)])
        boxes = np.concatenate([moved, moved + 3, wrong])
        scores = rng.uniform(0, 1, len(boxes)).astype(np.float32)
        samples.append(dict(
            img_id=info['img_id'], ori_shape=(info['height'], info['width']), instances=truth,
            pred_instances=dict(bboxes=torch.from_numpy(boxes), scores=torch.from_numpy(scores),
                                labels=torch.from_numpy(labels))))
    return samples


def evaluate(metric, dataset, samples):
    metric.dataset_meta = dataset.metainfo
    metric.process({}, samples)
    results = metric.evaluate(len(samples))
    return results


def unrounded_stats(monkeypatch):
    """Collect COCOeval's own numbers: the metric rounds them to three digits."""
    from mmdet.evaluation.metrics import coco_metric
    stats = []
    summarize = coco_metric.COCOeval.summarize

    def kept(evaluation):
        summarize(evaluation)
        stats.append(evaluation.stats.tolist())

    monkeypatch.setattr(coco_metric.COCOeval, 'summarize', kept)
    return stats


@pytest.mark.parametrize('options', [
    dict(), dict(classwise=True), dict(metric=['bbox', 'proposal']), dict(sort_categories=True),
    dict(metric_items=['mAP', 'mAP_s'])], ids=str)
def test_metrics_equal_those_of_the_annotation_file(coco_files, packed, options, monkeypatch):
    stats = unrounded_stats(monkeypatch)
    dataset = CocoLMDBDataset(lmdb=str(packed), test_mode=True)
    samples = fixed_predictions(dataset)
    build = METRICS.build
    expected = evaluate(build(dict(type='CocoMetric', ann_file=str(coco_files.ann_file),
                                   **options)), dataset, samples)
    found = evaluate(build(dict(type='CocoLMDBMetric', lmdb=str(packed), **options)),
                     dataset, samples)
    assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    half = len(stats) // 2
    assert half and stats[:half] == stats[half:]


@pytest.mark.parametrize('classes', [None, ('person', 'dog')])
def test_metrics_of_coco128_are_equal_to_the_last_digit(coco128, tmp_path, classes, monkeypatch):
    stats = unrounded_stats(monkeypatch)
    pack_coco(*coco128, tmp_path / 'lmdb')
    metainfo = None if classes is None else dict(classes=classes)
    dataset = CocoLMDBDataset(lmdb=str(tmp_path / 'lmdb'), metainfo=metainfo, test_mode=True)
    samples = fixed_predictions(dataset)
    expected = evaluate(CocoMetric(str(coco128.ann_file)), dataset, samples)
    found = evaluate(METRICS.build(dict(type='CocoLMDBMetric', lmdb=str(tmp_path / 'lmdb'))),
                     dataset, samples)
    assert found == expected
    assert 0.05 < found['coco/bbox_mAP'] < 0.9
    assert stats[0] == stats[1]


def test_stock_metric_without_annotation_file_gives_what_it_gives_on_files(coco_files, packed):
    from mmdet.datasets import CocoDataset
    ours = CocoLMDBDataset(lmdb=str(packed), test_mode=True)
    stock = CocoDataset(ann_file=str(coco_files.ann_file), test_mode=True,
                        data_prefix=dict(img=''), metainfo=dict(classes=('dog', 'cat', 'bird')))
    assert evaluate(CocoMetric(), ours, fixed_predictions(ours)) == \
        evaluate(CocoMetric(), stock, fixed_predictions(stock))


def test_annotation_file_of_an_inherited_config_is_not_read(packed):
    METRICS.build(dict(type='CocoLMDBMetric', lmdb=str(packed), ann_file='not/here.json'))


def test_missing_database_is_named(tmp_path):
    with pytest.raises(BpuError, match='no packed COCO data set at .*nowhere'):
        METRICS.build(dict(type='CocoLMDBMetric', lmdb=str(tmp_path / 'nowhere')))


def test_coco_api_is_that_of_the_file(coco_files, packed):
    from mmdet.datasets.api_wrappers import COCO
    expected, found = COCO(str(coco_files.ann_file)), coco_api(str(packed))
    assert found.imgs == expected.imgs and list(found.imgs) == list(expected.imgs)
    assert found.anns == expected.anns
    assert found.cats == expected.cats
    assert found.img_ann_map == expected.img_ann_map
    assert {k: sorted(v) for k, v in found.cat_img_map.items()} == \
        {k: sorted(v) for k, v in expected.cat_img_map.items()}
    assert found.get_cat_ids(cat_names=['bird', 'dog']) == [18, 5]
