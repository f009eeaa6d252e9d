"""Evaluation of an executable through the config's own evaluator: its prefix stays."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_bpu.engine.evaluation import evaluate
from mmdet_bpu.program.program import TensorSpec

SIDE, QUERIES = 64, 10
BOX = (16, 24, 48, 40)  # x1, y1, x2, y2 px in every picture
NAMES = ('first', 'second')


class OneBox:
    """An executable that finds :data:`BOX` as class 2 in every image."""

    def __init__(self):
        logits = torch.full((1, QUERIES, 3), -1000, dtype=torch.int32)
        logits[0, 0, 2] = 300
        boxes = torch.full((1, QUERIES, 4), 4, dtype=torch.int16)
        x1, y1, x2, y2 = (value * 256 // SIDE for value in BOX)
        boxes[0, 0] = torch.tensor([(x1 + x2) // 2, (y1 + y2) // 2, x2 - x1, y2 - y1])
        self.inputs = [TensorSpec('image', (1, SIDE, SIDE, 3), 'si8', 0.5)]
        self.outputs = [TensorSpec('cls_scores', tuple(logits.shape), 'si32', 0.01),
                        TensorSpec('bbox_preds', tuple(boxes.shape), 'si16', 1 / 256)]
        self.results = dict(cls_scores=logits, bbox_preds=boxes)
        self.metadata = {}
        self.kernel_counts = {}

    def run(self, inputs):
        return self.results


@pytest.fixture
def pictures(tmp_path):
    """Folder with JPEGImages of two names."""
    (tmp_path / 'JPEGImages').mkdir()
    for name in NAMES:
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'JPEGImages' / f'{name}.jpg'), picture)
    return tmp_path


PIPELINE = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                          'scale_factor'))]


def metrics_of(staged, work_dir, dataset, evaluator):
    cfg = staged('int', work_dir).to_dict()
    loader = dict(batch_size=1, num_workers=0, persistent_workers=False,
                  sampler=dict(type='DefaultSampler', shuffle=False),
                  dataset=dict(dataset, test_mode=True, pipeline=PIPELINE))
    cfg.update(val_dataloader=loader, test_dataloader=loader, val_evaluator=evaluator,
               test_evaluator=evaluator)
    return evaluate(Config(cfg, format_python_code=False), OneBox())


def test_pascal_voc(staged, pictures):
    (pictures / 'Annotations').mkdir()
    for name in NAMES:
        corners = ''.join(f'<{key}>{value + 1}</{key}>' for key, value in
                          zip(('xmin', 'ymin', 'xmax', 'ymax'), BOX))
        (pictures / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size><object>'
            f'<name>blue</name><difficult>0</difficult><bndbox>{corners}</bndbox>'
            '</object></annotation>')
    (pictures / 'test.txt').write_text('\n'.join(NAMES))
    metrics = metrics_of(
        staged, pictures / 'run',
        dict(type='VOCDataset', data_root=str(pictures), ann_file='test.txt',
             data_prefix=dict(sub_data_root=''), metainfo=dict(classes=('red', 'green', 'blue'))),
        dict(type='VOCMetric', metric='mAP', eval_mode='area'))
    assert metrics['pascal_voc/mAP'] == metrics['int/pascal_voc/mAP'] > 0.9
    assert not any('coco' in name for name in metrics)


def test_crowd_human(staged, pictures):
    x1, y1, x2, y2 = BOX
    box = [x1, y1, x2 - x1, y2 - y1]
    lines = [json.dumps(dict(ID=name, gtboxes=[
        dict(tag='person', fbox=box, hbox=box, vbox=box, head_attr={}, extra={})]))
        for name in NAMES]
    (pictures / 'val.odgt').write_text('\n'.join(lines))
    ann_file = str(pictures / 'val.odgt')
    metrics = metrics_of(
        staged, pictures / 'run',
        dict(type='CrowdHumanDataset', data_root=str(pictures), ann_file='val.odgt',
             data_prefix=dict(img='JPEGImages/'),
             metainfo=dict(classes=('person', 'green', 'blue'))),
        dict(type='CrowdHumanMetric', ann_file=ann_file, metric=['AP', 'MR']))
    assert metrics['crowd_human/mAP'] == metrics['int/crowd_human/mAP'] > 0
    assert {'crowd_human/mMR', 'int/crowd_human/mMR'} <= set(metrics)
