"""The host's suppression against one that compares every pair in exact rationals."""
from fractions import Fraction

import numpy as np
import pytest

from mmdet_bpu.runtime.nms import batched_nms, greedy_nms, soft_nms
from tests.quadratic_nms import exact_nms, exact_soft_nms


def random_boxes(seed, count=80, side=32):
    """Whole numbers, so that float32 holds every area exactly; many overlap, some are empty."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, side, (2, count, 2))
    boxes = np.concatenate([corners.min(0), corners.max(0)], axis=1).astype(np.float32)
    scores = (generator.integers(1, 32, count) / 32).astype(np.float32)  # of equal ones many
    return boxes, scores, generator.integers(0, 4, count)


def exact_by_label(boxes, scores, labels, iou_threshold, offset=0):
    kept = [members[index] for label in np.unique(labels)
            for members in [np.flatnonzero(labels == label)]
            for index in exact_nms(boxes[members], scores[members], iou_threshold, offset)]
    return sorted(kept, key=lambda i: (-scores[i], i))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.25, 0.5, 0.625, 1.0])
@pytest.mark.parametrize('seed', range(2))
def test_greedy_is_the_quadratic_one(seed, threshold, offset):
    boxes, scores, _ = random_boxes(seed)
    kept, kept_scores = greedy_nms(boxes, scores, threshold, offset)
    assert kept.tolist() == exact_nms(boxes, scores, Fraction(float(np.float32(threshold))), offset)
    assert (kept_scores == scores[kept]).all()


def test_an_overlap_of_just_the_threshold_suppresses_nothing():
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 2]])  # IoU 1/2
    assert greedy_nms(boxes, np.float32([1, 0.5]), 0.5)[0].tolist() == [0, 1]
    below = np.nextafter(np.float32(0.5), 0)
    assert greedy_nms(boxes, np.float32([1, 0.5]), below)[0].tolist() == [0]


def test_of_equal_scores_the_lower_index_is_kept():
    boxes = np.float32([[0, 0, 4, 4]] * 3 + [[9, 9, 10, 10]] * 2)
    assert greedy_nms(boxes, np.full(5, 0.5, np.float32), 0.5)[0].tolist() == [0, 3]


def test_boxes_without_area_do_not_suppress_each_other():
    boxes = np.float32([[3, 3, 3, 3]] * 2)  # IoU 0 / 0
    assert greedy_nms(boxes, np.float32([0.5, 0.6]), 0.5)[0].tolist() == [1, 0]


def test_score_threshold_and_count_come_before_and_after():
    boxes, scores, _ = random_boxes(3)
    above = np.flatnonzero(scores > 0.5)
    expected = above[exact_nms(boxes[above], scores[above], Fraction(1, 2))]
    assert greedy_nms(boxes, scores, 0.5, score_threshold=0.5)[0].tolist() == expected.tolist()
    assert greedy_nms(boxes, scores, 0.5, score_threshold=0.5, max_num=4)[0].tolist() \
        == expected[:4].tolist()


@pytest.mark.parametrize('split_thr', [10000, 80, 1])
@pytest.mark.parametrize('seed', range(2))
def test_labels_do_not_suppress_each_other(seed, split_thr):
    boxes, scores, labels = random_boxes(seed)
    kept, kept_scores = batched_nms(boxes, scores, labels, dict(
        type='nms', iou_threshold=0.5, split_thr=split_thr))
    assert kept.tolist() == exact_by_label(boxes, scores, labels, Fraction(1, 2))
    assert (kept_scores == scores[kept]).all()


def test_class_agnostic_boxes_suppress_whatever_their_label():
    boxes, scores, labels = random_boxes(5)
    nms = dict(type='nms', iou_threshold=0.5, class_agnostic=True, split_thr=10000)
    assert batched_nms(boxes, scores, labels, nms)[0].tolist() \
        == exact_nms(boxes, scores, Fraction(1, 2))


def test_many_class_agnostic_boxes_are_split_by_label_all_the_same():
    """That is how mmcv does it: from split_thr boxes on, each label by itself."""
    boxes, scores, labels = random_boxes(5)
    nms = dict(type='nms', iou_threshold=0.5, class_agnostic=True, split_thr=80)
    assert batched_nms(boxes, scores, labels, nms)[0].tolist() \
        == exact_by_label(boxes, scores, labels, Fraction(1, 2))


@pytest.mark.parametrize('split_thr', [10000, 1])
@pytest.mark.parametrize('limits', [dict(max_num=7), dict(limit=7), dict(max_num=7, limit=50),
                                    dict(max_num=50, limit=7)])
def test_the_best_so_many_are_kept(limits, split_thr):
    boxes, scores, labels = random_boxes(6)
    nms = dict(type='nms', iou_threshold=0.5, split_thr=split_thr,
               max_num=limits.get('max_num', -1))
    kept = batched_nms(boxes, scores, labels, nms, limit=limits.get('limit'))[0]
    assert kept.tolist() == exact_by_label(boxes, scores, labels, Fraction(1, 2))[:7]


def test_without_suppression_boxes_are_only_sorted():
    boxes, scores, labels = random_boxes(7)
    kept, kept_scores = batched_nms(boxes, scores, labels, None, limit=60)
    assert kept.tolist() == sorted(range(80), key=lambda i: (-scores[i], i))[:60]
    assert (kept_scores == scores[kept]).all()


def test_no_boxes_are_no_boxes():
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    for kind in ('nms', 'soft_nms'):
        kept, scores = batched_nms(*none, dict(type=kind, iou_threshold=0.5))
        assert len(kept) == len(scores) == 0


DECAYS = dict(
    naive=lambda iou: 0 if iou >= 0.5 else 1,
    linear=lambda iou: 1 - iou if iou >= 0.5 else 1,
    gaussian=lambda iou: float(np.exp(-float(iou)**2 / 0.5)))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', DECAYS)
@pytest.mark.parametrize('seed', range(2))
def test_soft_suppression_lowers_scores_as_the_exact_one(seed, method, offset):
    boxes = random_boxes(seed, count=60)[0] + np.float32([0, 0, 1, 1])  # none is empty
    scores = np.random.default_rng(seed).permutation(60).astype(np.float32) / 64 + np.float32(0.05)
    kept, kept_scores = soft_nms(boxes, scores, iou_threshold=0.5, sigma=0.5, min_score=0.04,
                                 method=method, offset=offset)
    exact = [[Fraction(float(side)) for side in box] for box in boxes]
    expected, expected_scores = exact_soft_nms(exact, scores.tolist(), DECAYS[method], 0.04, offset)
    assert kept.tolist() == expected and len(expected) < 60
    np.testing.assert_allclose(kept_scores, np.float64(expected_scores), rtol=1e-5)


def test_soft_suppression_orders_equal_scores_as_in_place_work_does():
    """Apart from each other, so that no score changes. The best, 3, changes places with 0; the next
    scan then meets 1, 2, 0: of these the first is taken, and 0 again goes to the end."""
    boxes = np.float32([[9 * i, 0, 9 * i + 4, 4] for i in range(4)])
    kept, _ = soft_nms(boxes, np.float32([0.5, 0.5, 0.5, 0.9]))
    assert kept.tolist() == [3, 1, 2, 0]


def test_what_leaves_is_replaced_by_the_last():
    """0 lowers 1 to nothing; 3 takes its place, before 2, which has the same score."""
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 4], [20, 0, 24, 4], [40, 0, 44, 4]])
    kept, scores = soft_nms(boxes, np.float32([0.9, 0.8, 0.5, 0.5]), method='naive')
    assert kept.tolist() == [0, 3, 2] and scores.tolist() == pytest.approx([0.9, 0.5, 0.5])


def test_soft_suppression_keeps_a_score_that_is_no_number():
    """Of a box without area at the same place, as mmcv does; where it is first it is the best."""
    boxes = np.float32([[3, 3, 3, 3], [3, 3, 3, 3], [9, 9, 12, 12]])
    kept, scores = soft_nms(boxes, np.float32([0.9, 0.8, 0.5]), method='gaussian')
    assert kept.tolist() == [0, 1, 2] and np.isnan(scores).tolist() == [False, True, False]
