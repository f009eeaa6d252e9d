"""Boxes land where they belong, small pictures stay readable."""
import numpy as np

from mmdet_bpu.analysis.pictures import Detections, color_of, draw, name_of, side_by_side

ONE = Detections(np.float32([[20, 30, 60, 90]]), np.float32([0.75]), np.array([1]))


def test_a_box_is_drawn_in_its_labels_colour_and_the_rest_stays():
    image = np.full((480, 500, 3), 7, np.uint8)
    drawn = draw(image, ONE, ['cat', 'dog'])
    assert drawn.shape == image.shape and (image == 7).all()
    assert tuple(drawn[60, 20]) == tuple(drawn[90, 40]) == color_of(1)
    assert (drawn[40:80, 30:50] == 7).all() and (drawn[120:, 120:] == 7).all()


def test_a_small_picture_is_enlarged_with_its_boxes():
    drawn = draw(np.zeros((100, 160, 3), np.uint8), ONE, ['cat', 'dog'])
    assert drawn.shape == (300, 480, 3)
    assert tuple(drawn[200, 60]) == color_of(1)


def test_a_label_at_the_edge_stays_inside():
    edge = Detections(np.float32([[470, 0, 480, 10]]), np.float32([0.5]), np.array([0]))
    drawn = draw(np.zeros((480, 480, 3), np.uint8), edge, ['a long class name'])
    plate = (drawn == color_of(0)).all(axis=2)
    assert plate[5:15, 300:470].mean() > 0.5


def test_side_by_side_has_titles_above():
    left, right = (np.full((50, 40, 3), value, np.uint8) for value in (10, 20))
    both = side_by_side([('float', left), ('int', right)])
    assert both.shape == (78, 84, 3)
    assert (both[28:, :40] == 10).all() and (both[28:, 44:] == 20).all()
    assert both[:28, :40].max() == 255


def test_names_colours_and_thresholds():
    assert (name_of(1, ['cat', 'dog']), name_of(5, ['cat'])) == ('dog', '5')
    assert len({color_of(label) for label in range(10)}) == 10
    assert len(ONE.above(0.8).scores) == 0 and len(ONE.above(0.75).scores) == 1
    assert ONE.as_rows([]) == [dict(label=1, name='1', score=0.75, bbox=[20, 30, 60, 90])]
