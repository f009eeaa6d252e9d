"""How what was measured on few images and the first order of many make one cost."""
import pytest

from mmdet_bpu.analysis.sensitivity import cost_of
from mmdet_bpu.analysis.sensitivity_files import render
from mmdet_bpu.analysis.sensitivity_result import Cost, Sensitivity, TensorSensitivity
from mmdet_bpu.analysis.tables import csv_text


def test_first_order_that_explains_all_stands_for_the_images_that_were_not_measured():
    cost = cost_of([(1.0, 30.0), (3.0, 20.0)], [1.0, 3.0, 8.0])
    assert cost.loss_change == pytest.approx(4.0)
    assert cost.standard_error == pytest.approx(0.0) and cost.sqnr_db == 25.0


def test_first_order_that_explains_nothing_is_left_out():
    assert cost_of([(1.0, None), (1.0, None)], [2.0, -2.0, 90.0]).loss_change == 1.0
    assert cost_of([(1.0, None), (3.0, None)], [0.0, 0.0, 0.0]).loss_change == 2.0
    opposite = cost_of([(1.0, None), (3.0, None)], [-1.0, -3.0, 50.0])
    assert opposite.loss_change == 2.0 and opposite.standard_error == pytest.approx(1.0)


def test_one_batch_has_no_standard_error():
    assert cost_of([(1.0, None)], [0.5]) == Cost(1.0, None, None)


def test_tables_and_page():
    tensor = TensorSensitivity('a<b', 'activation', 'relu', [1, 2], 'int16', 'a rule',
                               dict(int8=Cost(0.5, 0.1, 20.0), int16=Cost(0.125, None, None)))
    weight = TensorSensitivity('w', 'weight', 'conv2d', [3], 'int8', 'all',
                               dict(int8=Cost(0.25, 0.0, 30.0)))
    result = Sensitivity([tensor, weight], 2.0, 8, 16, 'annotations')
    assert (tensor.as_configured, tensor.given_back, weight.given_back) == (0.125, 0.375, None)
    header, first, second = csv_text(result.rows()).splitlines()
    assert header.startswith('rank,tensor,kind,op,shape,dtype,as configured,given back by int16,')
    assert first == '1,a<b,activation,relu,1x2,int16,0.125,0.375,0.5,0.1,20.0,0.125,,,a rule'
    assert second.startswith('2,w,weight,conv2d,3,int8,0.25,,0.25,')
    page = render(result, 'm<n')
    assert 'a&lt;b' in page and 'a<b' not in page and 'm&lt;n' in page
    assert '://' not in page.replace('http://www.w3.org', '')
