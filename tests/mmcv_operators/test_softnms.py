"""The operator ``softnms`` against exact rationals."""
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.mmcv_operators.softnms import softnms

METHODS = {'naive': 0, 'linear': 1, 'gaussian': 2}
MARGIN = 1e-4  # relative; a dozen float32 roundings stay far below
BOXES = st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 9)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])), min_size=1, max_size=12)


def soften(boxes, scores, method, threshold=0.25, sigma=0.5, min_score=0., offset=0):
    """(indices, corners, scores) of the boxes kept."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    dets = torch.full((len(boxes), 5), -7.)
    kept = softnms(boxes, torch.tensor(scores, dtype=torch.float32), dets, iou_threshold=threshold,
                   sigma=sigma, min_score=min_score, method=METHODS[method], offset=offset)
    assert kept.dtype == torch.int64
    assert (dets[len(kept):] == -7).all()
    assert torch.equal(dets[:len(kept), :4], boxes[kept])
    return kept.tolist(), dets[:len(kept), 4].tolist()


def drawn_scores(data, boxes, levels):
    return [s / levels for s in data.draw(
        st.lists(st.integers(1, levels), min_size=len(boxes), max_size=len(boxes)))]


@given(BOXES, st.sampled_from([0., 0.25, 0.5, 1.]), st.sampled_from([0., 0.25, 0.5]),
       st.sampled_from([0, 1]), st.data())
def test_naive_is_exact_among_ties_and_places(soft_nms_oracle, boxes, threshold, min_score, offset,
                                              data):
    """Scores become 0 or stay: many are equal, and the places after each removal decide."""
    scores = drawn_scores(data, boxes, 8)
    expected = soft_nms_oracle(boxes, scores, 'naive', threshold, min_score=min_score,
                               offset=offset)
    assert soften(boxes, scores, 'naive', threshold, min_score=min_score, offset=offset) == (
        expected.kept, expected.scores)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=10),
       st.sampled_from([0., 0.125, 0.5]), st.data())
def test_linear_is_exact_where_overlaps_are_powers_of_two(soft_nms_oracle, bars, min_score, data):
    """Two piles of bars of lengths 1, 2, 4, 8: an IoU is 0, 1/8, 1/4, 1/2 or 1."""
    boxes = [(20 * pile, 0, 20 * pile + 2**k, 1) for pile, k in bars]
    scores = drawn_scores(data, boxes, 4)
    expected = soft_nms_oracle(boxes, scores, 'linear', 0.25, min_score=min_score)
    assert soften(boxes, scores, 'linear', 0.25, min_score=min_score) == (
        expected.kept, expected.scores)


@pytest.mark.parametrize('method', ['linear', 'gaussian'])
@given(boxes=BOXES, threshold=st.floats(0.05, 0.95), sigma=st.floats(0.1, 2),
       min_score=st.sampled_from([1e-3, 0.05, 0.3]), offset=st.sampled_from([0, 1]),
       data=st.data())
def test_lowered_scores_are_right_within_rounding(soft_nms_oracle, method, boxes, threshold, sigma,
                                                  min_score, offset, data):
    scores = data.draw(st.lists(st.integers(1, 997), min_size=len(boxes), max_size=len(boxes),
                                unique=True))
    scores = torch.tensor(scores).div(997).tolist()
    expected = soft_nms_oracle(boxes, scores, method, threshold, sigma, min_score, offset)
    assume(expected.margin > MARGIN)
    kept, lowered = soften(boxes, scores, method, threshold, sigma, min_score, offset)
    assert kept == expected.kept
    assert lowered == pytest.approx(expected.scores, rel=1e-5)


def test_many_boxes_of_equal_scores_change_places_as_on_a_list(soft_nms_oracle):
    generator = torch.Generator().manual_seed(3)
    corner = torch.randint(0, 25, (150, 2), generator=generator)
    size = torch.randint(1, 9, (150, 2), generator=generator)
    boxes = torch.cat([corner, corner + size], 1).tolist()
    scores = (torch.randint(1, 5, (150, ), generator=generator) / 4).tolist()
    expected = soft_nms_oracle(boxes, scores, 'naive', 0.25, min_score=0.25)
    assert 20 < len(expected.kept) < 130
    assert soften(boxes, scores, 'naive', 0.25, min_score=0.25) == (expected.kept, expected.scores)


def test_an_iou_at_the_threshold_lowers_the_score():
    bars = [(0, 0, 2, 1), (0, 0, 1, 1)]
    assert soften(bars, [1, 0.5], 'linear', 0.5) == ([0, 1], [1, 0.25])
    assert soften(bars, [1, 0.5], 'naive', 0.5) == ([0, 1], [1, 0])
    assert soften(bars, [1, 0.5], 'linear', 0.5001) == ([0, 1], [1, 0.5])


def test_the_best_box_stays_however_low_its_score():
    assert soften([(0, 0, 1, 1), (5, 5, 6, 6)], [0.1, 0.2], 'linear', min_score=0.5)[0] == [1]


def test_empty_boxes_at_one_point_make_a_score_that_is_no_number():
    """0 / 0, as compiled. A scan for the maximum passes it, unless the scan starts there."""
    point, other = (3, 3, 3, 3), (5, 5, 6, 6)
    kept, scores = soften([point, other, point], [0.75, 0.5, 0.625], 'gaussian', min_score=0.1)
    assert kept == [0, 1, 2] and scores[:2] == [0.75, 0.5] and math.isnan(scores[2])
    kept, scores = soften([point, point, other], [0.75, 0.625, 0.5], 'gaussian', min_score=0.1)
    assert kept == [0, 1, 2] and math.isnan(scores[1]) and scores[2] == 0.5
    assert soften([point, point], [0.75, 0.5], 'linear') == ([0, 1], [0.75, 0.5])


def test_no_boxes_give_no_indices():
    kept = softnms(torch.empty(0, 4), torch.empty(0), torch.empty(0, 5), 0.3, 0.5, 1e-3, 1, 0)
    assert kept.shape == (0, ) and kept.dtype == torch.int64


def test_inputs_stay_as_they_were_and_may_need_gradients():
    boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 3]], requires_grad=True)
    scores = torch.tensor([0.5, 0.75], requires_grad=True)
    softnms(boxes, scores, torch.empty(2, 5), 0.3, 0.5, 0., 1, 0)
    assert boxes.tolist() == [[0, 0, 4, 4], [0, 0, 4, 3]] and scores.tolist() == [0.5, 0.75]


@pytest.mark.parametrize('wrong', ['boxes', 'scores', 'dets'])
def test_another_type_is_refused(wrong):
    tensors = {'boxes': torch.zeros(2, 4), 'scores': torch.zeros(2), 'dets': torch.zeros(2, 5)}
    tensors[wrong] = tensors[wrong].double()
    with pytest.raises(BpuError, match=f"'softnms' takes {wrong} of torch.float32, found .*64"):
        softnms(*tensors.values(), 0.3, 0.5, 1e-3, 1, 0)
