"""A contract is checked as a whole before a picture is fed: it comes from a file."""
import copy

import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.contract import check_contract

CONTRACT = dict(
    preprocessing=dict(resize=dict(height=8, width=12, keep_ratio=True, interpolation='bilinear',
                                   corner='center', pad_value=[114.0] * 3, enlarge=False,
                                   clip='picture'),
                       color_order='rgb', mean=[0.0] * 3, std=[1.0, 2.0, 3.0]),
    postprocessing=dict(family='detr', activation='sigmoid', num_classes=2, max_per_img=20,
                        min_bbox_size=None, nms=None, input_shape=[8, 12]),
    inputs=[dict(name='image', shape=[1, 8, 12, 3], dtype='si8', scale=0.02)],
    outputs=[dict(name='cls_scores', scale=0.1), dict(name='bbox_preds', scale=0.1)],
    output_tree=['cls_scores', 'bbox_preds'], classes=['a', 'b'])


def with_change(change):
    contract = copy.deepcopy(CONTRACT)
    change(contract)
    return contract


def test_a_whole_contract_passes():
    check_contract(CONTRACT)
    check_contract(with_change(lambda c: c.update(classes=[])))
    check_contract(with_change(lambda c: c['preprocessing']['resize'].update(keep_ratio=False)))


@pytest.mark.parametrize('change, message', [
    (lambda c: c.pop('preprocessing'), 'expected preprocessing, a table, found none'),
    (lambda c: c.update(preprocessing='rgb'), 'contract.preprocessing: expected a table'),
    (lambda c: c.update(postprocessing=[]), 'contract.postprocessing: expected a table'),
    (lambda c: c.update(classes=[1, 2]), 'contract.classes: expected a list of names'),
    (lambda c: c.update(output_tree=dict(a=1)), 'output_tree: expected a name or nested lists'),
    (lambda c: c['postprocessing'].update(family=['detr']), 'family'),
    (lambda c: c['postprocessing'].pop('num_classes'), 'num_classes'),
    (lambda c: c['preprocessing'].update(resize=8), 'resize: expected a table'),
    (lambda c: c['preprocessing']['resize'].pop('width'), 'expected width'),
    (lambda c: c['preprocessing']['resize'].update(height=8.0), 'resize.height: expected'),
    (lambda c: c['preprocessing']['resize'].update(height=1 << 40), 'do not fit the input'),
    (lambda c: c['preprocessing']['resize'].update(interpolation='best'), "'best'|best"),
    (lambda c: c['preprocessing']['resize'].update(corner='left'), 'corner'),
    (lambda c: c['preprocessing']['resize'].update(enlarge='no'), 'enlarge'),
    (lambda c: c['preprocessing']['resize'].update(pad_value=[0.0]), 'pad_value'),
    (lambda c: c['preprocessing'].update(mean=[0.0]), 'mean: expected a list of 3 numbers'),
    (lambda c: c['preprocessing'].update(std=[0.0] * 3), 'std: .* that are not 0'),
    (lambda c: c['preprocessing'].update(color_order='yuv'), 'color_order'),
    (lambda c: c['inputs'][0].update(scale=None), 'expected one int8 image'),
    (lambda c: c['inputs'][0].update(shape=[8, 12, 3]), 'expected one int8 image'),
    (lambda c: c.update(inputs=[]), 'expected one int8 image')])
def test_a_part_that_is_missing_or_odd_is_named(change, message):
    with pytest.raises(BpuError, match=message):
        check_contract(with_change(change))


def test_a_contract_of_version_0_1_needs_the_size_of_its_input():
    def old(contract):
        contract['postprocessing'] = dict(scores='sigmoid', num_classes=2, max_per_img=5)
    check_contract(with_change(old))
    broken = with_change(old)
    broken['preprocessing']['resize'].pop('height')
    with pytest.raises(BpuError, match='input_shape'):
        check_contract(broken)
