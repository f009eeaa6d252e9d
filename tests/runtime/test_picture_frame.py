"""Where a picture lies in the network's input, and boxes back in its own px."""
import numpy as np
import pytest

import mmdet_bpu.openmmlab  # noqa: F401
from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.picture_frame import place, to_picture


def contract(width, height, **resize):
    return dict(preprocessing=dict(resize=dict(width=width, height=height, **resize)))


def test_a_stretched_picture_fills_the_input():
    stretch = contract(320, 96, keep_ratio=False)
    assert place(stretch['preprocessing']['resize'], 640, 480) == (0, 0, 320, 96)
    boxes = np.float32([[10, 20, 320, 96]])
    assert to_picture(boxes, stretch, 640, 480).tolist() == [[20, 100, 640, 480]]


@pytest.mark.parametrize('corner, left, top', [('top_left', 0, 0), ('center', 0, 40)])
def test_a_wide_picture_has_bars_above_and_below(corner, left, top):
    box = contract(320, 320, keep_ratio=True, corner=corner)
    assert place(box['preprocessing']['resize'], 640, 480) == (left, top, 320, 240)
    boxes = np.float32([[10, top + 20, 320, top + 240]])
    assert to_picture(boxes, box, 640, 480).tolist() == [[20, 40, 640, 480]]


def test_a_tall_picture_has_bars_at_its_sides():
    box = contract(333, 320, keep_ratio=True, corner='center')
    # 100 x 200 becomes 160 x 320; 173 px are left over, 86 before and 87 after.
    assert place(box['preprocessing']['resize'], 100, 200) == (86, 0, 160, 320)
    assert to_picture(np.float32([[86, 0, 246, 320]]), box, 100, 200).tolist() == [[0, 0, 100, 200]]


@pytest.mark.parametrize('width, height', [(433, 517), (517, 433), (97, 3001), (640, 640)])
def test_boxes_come_back_as_from_mmdets_pipeline(width, height):
    """Resize with kept ratio and Pad; sides are rounded, so both factors count."""
    from mmdet.datasets.transforms import Pad, Resize
    results = dict(img=np.zeros((height, width, 3), np.uint8), img_shape=(height, width))
    results = Pad(size=(640, 640))(Resize(scale=(640, 640), keep_ratio=True)(results))
    box = contract(640, 640, keep_ratio=True, corner='top_left')
    boxes = np.random.default_rng(0).uniform(0, 640, (50, 4)).astype(np.float32)
    expected = boxes / np.tile(results['scale_factor'], 2)
    np.testing.assert_allclose(to_picture(boxes, box, width, height), expected, rtol=1e-6)


def test_a_picture_that_fits_stays_as_it_is_where_the_contract_says_so():
    resize = contract(320, 320, keep_ratio=True, corner='center', enlarge=False)
    assert place(resize['preprocessing']['resize'], 100, 50) == (110, 135, 100, 50)
    assert place(resize['preprocessing']['resize'], 640, 320) == (0, 80, 320, 160)


def test_no_side_of_a_long_picture_vanishes():
    resize = contract(320, 320, keep_ratio=True, corner='top_left')['preprocessing']['resize']
    assert place(resize, 10000, 3) == (0, 0, 320, 1)


@pytest.mark.parametrize('resize', [dict(keep_ratio=True), dict(keep_ratio=True, corner='bottom')])
def test_an_unknown_corner_is_refused(resize):
    with pytest.raises(BpuError, match='resize.corner: expected top_left or center, found'):
        place(contract(320, 320, **resize)['preprocessing']['resize'], 10, 10)
