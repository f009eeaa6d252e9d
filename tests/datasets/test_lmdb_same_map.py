"""One detector, evaluated by mmengine's runner from files and from a database."""
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_bpu.datasets import pack_coco

COCO128 = Path(__file__).parents[2].parent / 'shared/data/coco128'
FRACTIONS = (0.4, 0.7, 0.95)
CLASSES = dict(classes=('person', ), palette=[(220, 20, 60)])


@MODELS.register_module(name='GridOfBoxesForTests')
class GridOfBoxes(BaseModel):
    """Finds people at fixed places; every pixel of the image has a say in the scores."""

    def __init__(self, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        torch.manual_seed(0)
        self.scores = torch.nn.Conv2d(3, 8, 16, 16)

    def forward(self, inputs, data_samples, mode='tensor'):
        for image, sample in zip(inputs, data_samples):
            height, width = sample.ori_shape
            features = self.scores(image[None])[0]
            boxes, scores = [], []
            for level, fraction in enumerate(FRACTIONS):
                w, h = width * fraction, height * fraction
                places = torch.linspace(0, 1 - fraction, 3)
                grid = torch.cartesian_prod(places * width, places * height)
                boxes.append(torch.cat([grid, grid + torch.tensor([w, h])], dim=1))
                pooled = torch.nn.functional.adaptive_avg_pool2d(features[level:level + 2], 3)
                scores.append(level + pooled.sum(0).T.flatten())
            scores = torch.cat(scores)
            sample.pred_instances = InstanceData(
                bboxes=torch.cat(boxes), scores=scores.sigmoid(),
                labels=torch.zeros(len(scores), dtype=torch.long))
        return data_samples


def evaluate(dataset: dict, evaluator: dict, work_dir: Path, monkeypatch) -> list[float]:
    """COCOeval's twelve numbers; the metric itself rounds them to three digits."""
    from mmdet.evaluation.metrics import coco_metric
    stats = []
    summarize = coco_metric.COCOeval.summarize

    def kept(evaluation):
        summarize(evaluation)
        stats.extend(evaluation.stats.tolist())

    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='mmdet.Resize', scale=(400, 300), keep_ratio=True),
                dict(type='mmdet.PackDetInputs')]
    with monkeypatch.context() as patched:
        patched.setattr(coco_metric.COCOeval, 'summarize', kept)
        Runner(
            model=dict(type='GridOfBoxesForTests', data_preprocessor=dict(
                type='DetDataPreprocessor', mean=[120.] * 3, std=[60.] * 3)),
            work_dir=str(work_dir), default_scope='mmdet', test_cfg=dict(), log_level='WARNING',
            test_dataloader=dict(
                batch_size=4, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(pipeline=pipeline, test_mode=True, metainfo=CLASSES, **dataset)),
            test_evaluator=evaluator).test()
    return stats


@pytest.mark.parametrize('split', ['train', 'val'])
def test_map_of_a_fixed_model_is_identical_to_the_last_digit(tmp_path, monkeypatch, split):
    if not COCO128.is_dir():
        pytest.skip('shared/data/coco128 is not beside the repository')
    images, ann_file = COCO128 / f'{split}2017', COCO128 / f'annotations/instances_{split}2017.json'
    lmdb = str(tmp_path / 'lmdb')
    pack_coco(images, ann_file, lmdb, shards=3)
    files = evaluate(dict(type='CocoDataset', ann_file=str(ann_file),
                          data_prefix=dict(img=str(images))),
                     dict(type='CocoMetric', ann_file=str(ann_file)), tmp_path, monkeypatch)
    packed = evaluate(dict(type='CocoLMDBDataset', lmdb=lmdb),
                      dict(type='CocoLMDBMetric', lmdb=lmdb), tmp_path, monkeypatch)
    stock_metric = evaluate(dict(type='CocoLMDBDataset', lmdb=lmdb), dict(type='CocoMetric'),
                            tmp_path, monkeypatch)
    assert len(files) == 12
    assert packed == files
    assert files[0] > 1e-4
    # The stock metric makes its ground truth from the samples: other areas, same matches.
    assert stock_metric[:3] == pytest.approx(files[:3], abs=1e-9)
