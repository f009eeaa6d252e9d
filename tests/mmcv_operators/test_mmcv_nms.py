"""``mmcv.ops`` as mmdet calls it, on the operators that the stand-in hands out."""
import sys

import numpy as np
import pytest
import torch

import mmdet_bpu.registration  # noqa: F401  (stands in for mmcv._ext before mmcv.ops asks for it)
from mmdet_bpu.compat import ExtStandIn

import mmcv.ops  # isort: skip

THRESHOLD = 0.25


@pytest.fixture(autouse=True)
def operators_of_the_stand_in(monkeypatch):
    """Ours run even where the tests find full mmcv."""
    monkeypatch.setattr(sys.modules['mmcv.ops.nms'], 'ext_module', ExtStandIn())


class Crowd:
    """120 boxes of 3 classes in 25 x 25 px, integer corners.

    Attributes:
        boxes, scores, labels (torch.Tensor): (120, 4) float32, (120, ), (120, ) int64.
        rows (list[list[float]]): The boxes as numbers.
    """

    def __init__(self, levels: int) -> None:
        """``levels`` of scores; from 120 on, all are different."""
        generator = torch.Generator().manual_seed(1)
        corner = torch.randint(0, 25, (120, 2), generator=generator)
        size = torch.randint(0, 9, (120, 2), generator=generator)
        self.boxes = torch.cat([corner, corner + size], 1).float()
        self.rows = self.boxes.tolist()
        self.scores = torch.randperm(120, generator=generator) % levels / 128
        self.labels = torch.randint(0, 3, (120, ), generator=generator)

    def order(self) -> list[int]:
        return self.scores.sort(0, descending=True)[1].tolist()


@pytest.fixture(params=[120, 8], ids=['different scores', 'equal scores'])
def crowd(request):
    return Crowd(request.param)


def check(crowd, dets, keep, expected):
    assert 10 < len(expected) < 110
    assert keep.tolist() == expected
    assert torch.equal(dets, torch.cat([crowd.boxes, crowd.scores[:, None]], 1)[expected])


@pytest.mark.parametrize('offset', [0, 1])
def test_nms(crowd, nms_oracle, offset):
    dets, keep = mmcv.ops.nms(crowd.boxes, crowd.scores, THRESHOLD, offset)
    check(crowd, dets, keep, nms_oracle(crowd.rows, crowd.order(), THRESHOLD, offset))


def test_nms_of_arrays(crowd, nms_oracle):
    dets, keep = mmcv.ops.nms(crowd.boxes.numpy(), crowd.scores.numpy(), THRESHOLD)
    assert isinstance(dets, np.ndarray) and keep.dtype == np.int64
    check(crowd, torch.from_numpy(dets), keep, nms_oracle(crowd.rows, crowd.order(), THRESHOLD))


def test_score_threshold_and_max_num(nms_oracle):
    crowd = Crowd(120)
    dets, keep = mmcv.ops.nms(crowd.boxes, crowd.scores, THRESHOLD, score_threshold=0.25,
                              max_num=20)
    order = [i for i in crowd.order() if crowd.scores[i] > 0.25]
    expected = nms_oracle(crowd.rows, order, THRESHOLD)
    assert len(expected) > 20
    check(crowd, dets, keep, expected[:20])


@pytest.mark.parametrize('max_num', [-1, 15])
def test_batched_nms_keeps_classes_apart(crowd, nms_oracle, max_num):
    dets, keep = mmcv.ops.batched_nms(crowd.boxes, crowd.scores, crowd.labels, dict(
        type='nms', iou_threshold=THRESHOLD, max_num=max_num))
    expected = nms_oracle(crowd.rows, crowd.order(), THRESHOLD, labels=crowd.labels.tolist())
    check(crowd, dets, keep, expected if max_num < 0 else expected[:max_num])


@pytest.mark.parametrize('where', ['argument', 'config'])
def test_class_agnostic_batched_nms(crowd, nms_oracle, where):
    cfg = dict(type='nms', iou_threshold=THRESHOLD)
    if where == 'config':
        cfg['class_agnostic'] = True
    dets, keep = mmcv.ops.batched_nms(crowd.boxes, crowd.scores, crowd.labels, cfg,
                                      class_agnostic=where == 'argument')
    check(crowd, dets, keep, nms_oracle(crowd.rows, crowd.order(), THRESHOLD))


@pytest.mark.parametrize('split_thr', [121, 120], ids=['together', 'by class'])
@pytest.mark.parametrize('max_num', [-1, 15])
def test_both_sides_of_split_thr(nms_oracle, split_thr, max_num):
    """From ``split_thr`` boxes on mmcv suppresses class by class and sorts what is left."""
    crowd = Crowd(120)
    dets, keep = mmcv.ops.batched_nms(crowd.boxes, crowd.scores, crowd.labels, dict(
        type='nms', iou_threshold=THRESHOLD, split_thr=split_thr, max_num=max_num))
    expected = nms_oracle(crowd.rows, crowd.order(), THRESHOLD, labels=crowd.labels.tolist())
    check(crowd, dets, keep, expected if max_num < 0 else expected[:max_num])


def test_split_by_class_among_equal_scores(nms_oracle):
    crowd = Crowd(8)
    dets, keep = mmcv.ops.batched_nms(crowd.boxes, crowd.scores, crowd.labels, dict(
        type='nms', iou_threshold=THRESHOLD, split_thr=1))
    expected = set()
    for label in range(3):
        members = (crowd.labels == label).nonzero()[:, 0]
        order = members[crowd.scores[members].sort(0, descending=True)[1]]
        expected |= set(nms_oracle(crowd.rows, order.tolist(), THRESHOLD))
    assert set(keep.tolist()) == expected
    assert torch.equal(dets[:, 4], crowd.scores[keep])
    assert (dets[1:, 4] <= dets[:-1, 4]).all()


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(soft_nms_oracle, method):
    """Boxes one pixel larger: empty ones have no IoU, and gaussian scores no value then."""
    crowd = Crowd(120)
    crowd.boxes[:, 2:] += 1
    dets, keep = mmcv.ops.soft_nms(crowd.boxes, crowd.scores, THRESHOLD, sigma=0.5,
                                   min_score=0.2, method=method)
    expected = soft_nms_oracle(crowd.boxes.tolist(), crowd.scores.tolist(), method, THRESHOLD,
                               0.5, 0.2)
    assert expected.margin > 1e-5
    assert 10 < len(expected.kept) < 110
    assert keep.tolist() == expected.kept
    assert dets[:, 4].tolist() == pytest.approx(expected.scores, rel=1e-5)
    assert torch.equal(dets[:, :4], crowd.boxes[keep])


def test_batched_soft_nms(soft_nms_oracle):
    """As CornerNet asks for it; boxes far apart stand for classes."""
    crowd = Crowd(120)
    crowd.boxes[:, 2:] += 1
    dets, keep = mmcv.ops.batched_nms(crowd.boxes, crowd.scores, crowd.labels, dict(
        type='soft_nms', iou_threshold=0.5, method='gaussian', min_score=0.2))
    apart = (crowd.boxes + 100 * crowd.labels[:, None]).tolist()
    expected = soft_nms_oracle(apart, crowd.scores.tolist(), 'gaussian', sigma=0.5, min_score=0.2)
    assert expected.margin > 1e-5
    assert keep.tolist() == expected.kept
    assert dets[:, 4].tolist() == pytest.approx(expected.scores, rel=1e-5)


def test_no_boxes():
    for function in (mmcv.ops.nms, mmcv.ops.soft_nms):
        dets, keep = function(torch.empty(0, 4), torch.empty(0), 0.5)
        assert dets.shape == (0, 5) and keep.shape == (0, )
