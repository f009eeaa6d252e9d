"""The operator ``nms`` against exact rationals."""
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import mmdet_bpu.mmcv_operators.nms as module
from mmdet_bpu.errors import BpuError
from mmdet_bpu.mmcv_operators.nms import nms

# Small integers are exact in float32, and their IoU is either equal to such a threshold or further
# from it than float32 can err: comparisons at equality are the real ones.
EXACT_THRESHOLDS = (0., 0.25, 0.5, 0.75, 1.)
CORNERS = st.tuples(*[st.integers(0, 9)] * 4)
INTEGER_BOXES = st.lists(CORNERS.map(lambda c: (min(c[0], c[2]), min(c[1], c[3]),
                                                max(c[0], c[2]), max(c[1], c[3]))),
                         min_size=1, max_size=40)
# Sides from 0.01 px: an area must not underflow.
FLOAT_BOXES = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32),
              st.floats(0.015625, 60, width=32), st.floats(0.015625, 60, width=32)),
    min_size=1, max_size=12).map(lambda rows: [
        (x, y, float(torch.tensor(x) + w), float(torch.tensor(y) + h)) for x, y, w, h in rows])


def suppress(boxes, scores, threshold, offset=0) -> list[int]:
    kept = nms(torch.tensor(boxes, dtype=torch.float32), torch.as_tensor(scores), threshold, offset)
    assert kept.dtype == torch.int64
    return kept.tolist()


def sorted_order(scores) -> list[int]:
    """Best first; equal scores as torch.sort has them, which the compiled operator calls."""
    return torch.as_tensor(scores).sort(0, descending=True)[1].tolist()


def crowd(count: int, side: int, seed: int = 0) -> tuple[list, torch.Tensor]:
    """Boxes of integer corners in a square, among them empty ones, and scores of 16 levels."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, side, (count, 2), generator=generator)
    size = torch.randint(0, 9, (count, 2), generator=generator)
    scores = torch.randint(0, 16, (count, ), generator=generator) / 16
    return torch.cat([corner, corner + size], 1).tolist(), scores


@given(INTEGER_BOXES, st.sampled_from(EXACT_THRESHOLDS), st.sampled_from([0, 1]), st.data())
def test_integer_boxes_are_decided_exactly(nms_oracle, boxes, threshold, offset, data):
    """Ties of score, touching, equal and empty boxes, IoU equal to the threshold among them."""
    scores = [s / 4 for s in data.draw(st.lists(st.integers(0, 4), min_size=len(boxes),
                                                max_size=len(boxes)))]
    expected = nms_oracle(boxes, sorted_order(scores), threshold, offset)
    assert suppress(boxes, scores, threshold, offset) == expected


@given(FLOAT_BOXES, st.floats(0.05, 0.95), st.sampled_from([0, 1]))
def test_real_boxes_are_decided_exactly(nms_oracle, distance_oracle, boxes, threshold, offset):
    assume(distance_oracle(boxes, threshold, offset) > 1e-5)
    scores = torch.linspace(1, 0, len(boxes))
    assert suppress(boxes, scores, threshold, offset) == nms_oracle(
        boxes, range(len(boxes)), threshold, offset)


@pytest.mark.parametrize('block, strip', [(1, 1), (7, 5), (8, 16), (64, 1000)])
def test_blocks_and_strips_do_not_show(monkeypatch, nms_oracle, block, strip):
    monkeypatch.setattr(module, 'BLOCK', block)
    monkeypatch.setattr(module, 'STRIP', strip)
    boxes, scores = crowd(150, 30)
    expected = nms_oracle(boxes, sorted_order(scores), 0.25)
    assert 20 < len(expected) < 130
    assert suppress(boxes, scores, 0.25) == expected


def test_more_boxes_than_a_block_and_a_strip_hold():
    """Of the boxes that lie on each other in 300 places, the first stays."""
    count = 2 * module.STRIP + module.BLOCK
    boxes = [(4 * (i % 300), 0, 4 * (i % 300) + 2, 1) for i in range(count)]
    assert suppress(boxes, torch.linspace(1, 0, count), 0.5) == list(range(300))


@pytest.mark.parametrize('count', [2, 3, module.BLOCK, 3 * module.BLOCK + 1])
def test_in_a_chain_every_other_box_stays(count):
    """Each overlaps its neighbours only: the longest dependence that n boxes can have."""
    boxes = [(4 * i, 0, 4 * i + 6, 1) for i in range(count)]
    scores = torch.linspace(1, 0, count)
    assert suppress(boxes, scores, 0.1) == list(range(0, count, 2))


def test_equal_scores_stand_as_torch_sorts_them():
    scores = torch.tensor([0.5, 0.25, 0.75]).repeat(100)
    apart = [(3 * i, 0, 3 * i + 1, 1) for i in range(300)]
    assert suppress(apart, scores, 0.5) == sorted_order(scores)


@pytest.mark.parametrize('offset, kept', [(0, [0, 1]), (1, [0])])
def test_boxes_that_touch_share_a_row_of_pixels_under_offset_1(offset, kept):
    """Offset 1: two boxes of 3 x 2 px that share 1 x 2 px, IoU 2 / 10."""
    assert suppress([(0, 0, 2, 1), (2, 0, 4, 1)], [0.9, 0.8], 0.19, offset) == kept


def test_an_iou_at_the_threshold_keeps_the_box():
    """1 / 2 at 0.5; and 7 / 10, which lies above 0.7 as float32 has it but rounds to it."""
    assert suppress([(0, 0, 2, 1), (0, 0, 1, 1)], [0.9, 0.8], 0.5) == [0, 1]
    assert suppress([(0, 0, 10, 1), (0, 0, 7, 1)], [0.9, 0.8], 0.7) == [0, 1]


@pytest.mark.parametrize('offset, kept', [(0, [0, 1, 2]), (1, [0, 2])])
def test_boxes_without_area_have_no_iou_under_offset_0(offset, kept):
    assert suppress([(3, 3, 3, 3), (3, 3, 3, 3), (0, 0, 9, 9)], [0.9, 0.8, 0.7], 0.5,
                    offset) == kept


def test_a_coordinate_that_is_no_number_neither_suppresses_nor_is_suppressed():
    boxes = [(0, 0, float('nan'), 4), (0, 0, 4, 4), (0, 0, float('inf'), 4), (0, 0, 4, 4)]
    assert suppress(boxes, [0.9, 0.8, 0.7, 0.6], 0.5) == [0, 1, 2]


def test_no_boxes_give_no_indices():
    kept = nms(torch.empty(0, 4), torch.empty(0), 0.5, 0)
    assert kept.shape == (0, ) and kept.dtype == torch.int64


def test_scores_may_be_of_another_type_than_boxes():
    boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 3]])
    assert nms(boxes, torch.tensor([1, 2]), 0.5, 0).tolist() == [1]
    assert nms(boxes, torch.tensor([1, 2], dtype=torch.float16), 0.5, 0).tolist() == [1]


def test_inputs_stay_as_they_were_and_may_need_gradients():
    boxes, scores = crowd(60, 20)
    boxes = torch.tensor(boxes, dtype=torch.float32)
    needing = boxes.clone().requires_grad_(), scores.clone().requires_grad_()
    nms(*needing, 0.25, 0)
    assert torch.equal(needing[0], boxes) and torch.equal(needing[1], scores)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.int64])
def test_boxes_of_another_type_are_refused(dtype):
    with pytest.raises(BpuError, match=r"'nms' takes boxes of torch.float32, found .*\.float\(\)"):
        nms(torch.zeros(2, 4, dtype=dtype), torch.zeros(2), 0.5, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_indices_stay_on_the_device_of_the_boxes(nms_oracle):
    boxes, scores = crowd(400, 40)
    scores = torch.linspace(1, 0, len(boxes))
    kept = nms(torch.tensor(boxes, dtype=torch.float32).cuda(), scores.cuda(), 0.25, 0)
    assert kept.is_cuda
    assert kept.tolist() == nms_oracle(boxes, range(len(boxes)), 0.25)
