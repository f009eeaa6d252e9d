"""The nesting of outputs goes through plain data and comes back."""
import json

import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.output_tree import fill, leaves, name_tensors, read_tree, tensors_of

A, B, C, D = (torch.full((1, ), float(value)) for value in range(4))
NESTED = ((A, B), [C, (D, )])


def test_tensors_are_named_by_their_part_and_their_place_in_it():
    assert name_tensors(NESTED, ('scores', 'boxes')) == [
        ['scores.0', 'scores.1'], ['boxes.0', ['boxes.1.0']]]


def test_parts_without_a_name_are_numbered():
    assert name_tensors((A, [B], C), ('scores', )) == ['scores', ['output_1.0'], 'output_2']


def test_a_single_tensor_is_called_outputs():
    assert name_tensors(A, ('scores', )) == 'outputs'


def test_the_tree_restores_what_it_was_made_from():
    tree = json.loads(json.dumps(name_tensors(NESTED, ('scores', 'boxes'))))
    values = dict(zip(leaves(tree), tensors_of(NESTED), strict=True))
    assert fill(tree, values) == [[A, B], [C, [D]]]


def test_an_absent_output_stays_absent():
    tree = json.loads(json.dumps(name_tensors((A, None, [B, None]), 'xyz')))
    assert tree == ['x', None, ['z.0', None]]
    assert leaves(tree) == ['x', 'z.0']
    assert fill(tree, {'x': A, 'z.0': B}) == [A, None, [B, None]]


def test_a_head_that_returns_something_else_is_refused():
    with pytest.raises(BpuError, match='found a dict in its outputs'):
        name_tensors((A, dict(boxes=B)))


@pytest.mark.parametrize('data, words', [
    ([['scores'], 'boxes.1'], 'there is no boxes.1 among scores, boxes'),
    (['scores', 'scores'], 'names an output twice'),
    (dict(scores=0), 'found dict'),
    ([['scores', 7]], 'found int'),
    ([[[[[[[[[['scores']]]]]]]]]], 'at most 8 deep'),
], ids=['unknown', 'twice', 'dict', 'number', 'deep'])
def test_a_damaged_tree_is_refused(data, words):
    with pytest.raises(BpuError, match=words):
        read_tree(data, ['scores', 'boxes'])
