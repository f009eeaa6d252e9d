"""A stock dense head predicts with mmcv-lite on the CPU."""
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import mmdet_bpu.registration  # noqa: F401

CLASSES = 4
SHAPE = (64, 96)  # px


def test_retinanet_keeps_what_exact_suppression_keeps(nms_oracle, distance_oracle):
    config = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').model
    config.bbox_head.update(num_classes=CLASSES, in_channels=8, feat_channels=8, stacked_convs=1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MODELS.build({**config.bbox_head, 'test_cfg': config.test_cfg}).eval()
    torch.manual_seed(3)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.constant_(head.retina_cls.bias, -3.5)
    features = [torch.randn(1, 8, -(-SHAPE[0] // stride), -(-SHAPE[1] // stride))
                for stride in (8, 16, 32, 64, 128)]
    meta = dict(img_shape=SHAPE, scale_factor=(1., 1.))
    with torch.no_grad():
        outputs = head(features)
        found, = head.predict_by_feat(*outputs, batch_img_metas=[meta])
        candidates, = head.predict_by_feat(*outputs, batch_img_metas=[meta], with_nms=False)

    # mmcv moves each class by a multiple of the largest coordinate + 1, in float32.
    boxes, labels = candidates.bboxes.numpy(), candidates.labels.numpy()
    moved = boxes + (labels.astype(np.float32) * (boxes.max() + np.float32(1)))[:, None]
    assert moved.dtype == np.float32
    moved = moved.tolist()
    threshold = head.test_cfg.nms.iou_threshold
    by_class = [[moved[i] for i in np.flatnonzero(labels == c)] for c in range(CLASSES)]
    assert min(distance_oracle(rows, threshold) for rows in by_class) > 1e-5
    order = np.argsort(-candidates.scores.numpy(), kind='stable')
    assert len(np.unique(candidates.scores)) == len(order)
    expected = nms_oracle(moved, order.tolist(), threshold)
    assert 10 < len(expected) < len(order) - 10
    kept = expected[:head.test_cfg.max_per_img]
    assert set(labels[kept]) == set(range(CLASSES))
    assert torch.equal(found.bboxes, candidates.bboxes[kept])
    assert torch.equal(found.scores, candidates.scores[kept])
    assert torch.equal(found.labels, candidates.labels[kept])
