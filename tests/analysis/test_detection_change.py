"""What became of the boxes of one model in another."""
import numpy as np
import pytest

from mmdet_bpu.analysis.detection_change import detection_change, iou
from mmdet_bpu.analysis.pictures import Detections


def found(*rows):
    """Detections of (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


BOX = (0, 0, 10, 10)


def test_equal_detections_have_not_changed():
    both = found((*BOX, 0.9, 1), (20, 20, 30, 30, 0.5, 0))
    change = detection_change(both, both, 0.3)
    assert (change.change, change.lost, change.added) == (0, 0, 0)


def test_a_box_that_is_gone_counts_with_its_score_and_so_does_a_new_one():
    change = detection_change(found((*BOX, 0.75, 1)), found((50, 50, 60, 60, 0.5, 1)), 0.3)
    assert (change.change, change.lost, change.added) == (1.25, 1, 1)


def test_another_class_is_another_object():
    change = detection_change(found((*BOX, 0.75, 1)), found((*BOX, 0.75, 2)), 0.3)
    assert (change.lost, change.added) == (1, 1)


def test_a_partner_below_the_threshold_is_a_partner():
    change = detection_change(found((*BOX, 0.375, 1)), found((0, 0, 10, 9, 0.25, 1)), 0.3)
    assert (change.change, change.lost, change.added) == (0.125, 0, 0)


def test_what_is_below_the_threshold_on_both_sides_does_not_count():
    change = detection_change(found((*BOX, 0.2, 1)), found((50, 50, 60, 60, 0.1, 1)), 0.3)
    assert (change.change, change.lost, change.added) == (0, 0, 0)


def test_one_box_is_the_partner_of_one_box():
    change = detection_change(found((*BOX, 0.75, 1), (0, 0, 10, 9.5, 0.5, 1)), found((*BOX, 0.75, 1)),
                              0.3)
    assert (change.change, change.lost, change.added) == (0.5, 1, 0)


@pytest.mark.parametrize('first, second', [(found(), found()), (found((*BOX, 0.5, 0)), found())])
def test_pictures_without_a_box_are_no_error(first, second):
    assert detection_change(first, second, 0.3).lost == len(first.scores)


def test_the_overlap_is_a_share_of_the_union():
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [9, 9, 9, 9]], np.float32)
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 4 / 28, 0], [4 / 28, 1, 0], [0, 0, 0]])
