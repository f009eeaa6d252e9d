"""What an artefact's metadata say about its outputs."""
import json

import pytest
from mmengine.config import Config

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.contract import decoding_in, deploy_metadata, output_tree_in

CFG = Config(dict(
    model=dict(data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True)),
    bpu=dict(input_shape=(64, 96), march='nash-p')))


def test_metadata_of_deformable_detr_are_those_of_version_0_1_and_new_keys(stock):
    metadata = deploy_metadata(CFG, stock('deformable'), ['cls_scores', 'bbox_preds'], ['cat'])
    assert json.loads(json.dumps(metadata)) == metadata
    new = dict(output_tree=metadata.pop('output_tree'),
               family=metadata['postprocessing'].pop('family'),
               head=metadata['postprocessing'].pop('head'))
    assert new == dict(output_tree=['cls_scores', 'bbox_preds'], family='detr',
                       head='DeformableDETRHead')
    preprocessing = metadata.pop('preprocessing')
    assert preprocessing['resize']['height'] == 64 and preprocessing['color_order'] == 'rgb'
    assert metadata == dict(
        postprocessing=dict(by='host', scores='sigmoid', activation='sigmoid', num_classes=80,
                            max_per_img=15, input_shape=[64, 96], min_bbox_size=None, nms=None,
                            boxes='cx, cy, w, h in [0, 1] of the resized image'),
        outputs=[dict(name='cls_scores'), dict(name='bbox_preds')],
        classes=['cat'], march='nash-p')


def test_what_nash_b_leaves_to_the_host_is_in_the_contract(stock):
    cfg = Config(dict(CFG, bpu=dict(CFG.bpu, march='nash-b')))
    metadata = deploy_metadata(cfg, stock('deformable'), ['cls_scores', 'bbox_preds'])
    assert metadata['march'] == 'nash-b'
    assert metadata['host_steps'] == ['quantize', 'dequantize', 'topk']


def test_a_dense_detector_is_never_called_a_detr(stock):
    tree = [['pred_maps.0', 'pred_maps.1']]
    metadata = deploy_metadata(CFG, stock('yolov3'), tree)
    assert metadata['outputs'] == [dict(name='pred_maps.0'), dict(name='pred_maps.1')]
    assert metadata['output_tree'] == tree
    decoding = decoding_in(metadata)
    assert decoding['head'] == 'YOLOV3Head' and decoding['family'] != 'detr'
    assert decoding['num_classes'] == 80


@pytest.mark.parametrize('postprocessing, family', [
    (dict(scores='sigmoid', max_per_img=100), 'detr'),
    (dict(scores='softmax', family='anchors'), 'anchors'),
    (dict(family='points'), 'points')])
def test_the_family_of_an_artefact(postprocessing, family):
    assert decoding_in(dict(postprocessing=postprocessing)) == dict(postprocessing, family=family)


def test_an_artefact_that_says_nothing_has_no_family():
    assert decoding_in({}) == {}


@pytest.mark.parametrize('metadata, tree', [
    (dict(output_tree=[['b'], 'a'], outputs=['a', 'b']), [['b'], 'a']),
    (dict(outputs=[dict(name='b'), dict(name='a')]), ['b', 'a']),
    (dict(outputs=['b', 'a']), ['b', 'a']),
    (dict(), ['a', 'b'])])
def test_the_nesting_of_an_artefacts_outputs(metadata, tree):
    assert output_tree_in(metadata, ['a', 'b']) == tree


def test_outputs_that_there_are_not_are_refused():
    with pytest.raises(BpuError, match='no c among a, b'):
        output_tree_in(dict(outputs=['c']), ['a', 'b'])
