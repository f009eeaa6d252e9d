"""From a contract and integers to boxes: contracts of version 0.1, letterbox, what is refused."""
import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmdet_bpu
from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.decoders import families
from mmdet_bpu.runtime.detections import detect
from tests.stock_heads import (CASES, build_head, facts_of_head, outputs_of, quantized,
                               stock_detections)


def contract_of(facts, outputs, **resize):
    resize = dict(dict(height=100, width=200, keep_ratio=False), **resize)
    return dict(preprocessing=dict(resize=resize), postprocessing=facts, outputs=outputs)


def test_a_contract_of_version_0_1_is_deformable_detr(assert_same):
    facts = dict(by='host', scores='sigmoid', num_classes=8, max_per_img=100,
                 boxes='cx, cy, w, h in [0, 1] of the resized image')
    generator = np.random.default_rng(0)
    integers = dict(cls_scores=generator.integers(-40000, 40000, (1, 120, 8), dtype=np.int32),
                    bbox_preds=generator.integers(0, 30000, (1, 120, 4), dtype=np.int16))
    outputs = [dict(name='cls_scores', scale=1e-4), dict(name='bbox_preds', scale=2**-15)]
    found = detect(integers, contract_of(facts, outputs), 640, 480)

    head = build_head(CASES['deformable-detr'])
    tree = [torch.tensor(integers[entry['name']])[None].float() * entry['scale']
            for entry in outputs]
    expected = stock_detections(head, tree, (100, 200), (200 / 640, 100 / 480))
    assert_same(found, expected.bboxes.numpy(), expected.scores.numpy(), expected.labels.numpy())


@pytest.fixture
def tood():
    """Integers and contract of two levels with a box each: (4, 8, 12, 16) px and the same again."""
    facts = dict(family='decoded_boxes', input_shape=[100, 200], num_classes=1, activation='none',
                 score_thr=0.05, nms_pre=10, strides=[[8, 8], [16, 16]], max_per_img=5,
                 min_bbox_size=0, nms=dict(type='nms', iou_threshold=0.5, offset=0, max_num=-1,
                                           class_agnostic=False, split_thr=10000,
                                           score_threshold=0.0))
    integers = {
        'scores.0': np.zeros((1, 1, 2, 2), np.int8), 'scores.1': np.full((1, 1, 1, 1), 40, np.int8),
        'boxes.0': np.zeros((1, 4, 2, 2), np.int16), 'boxes.1': np.zeros((1, 4, 1, 1), np.int16)}
    integers['scores.0'][..., 1, 0] = 50
    integers['boxes.0'][0, :, 1, 0] = 1, 2, 3, 4
    integers['boxes.1'][0, :, 0, 0] = 0.5 * np.arange(1, 5) * 2
    scales = {'scores.0': 0.01, 'scores.1': 0.02, 'boxes.0': 0.5, 'boxes.1': 0.25}
    contract = contract_of(facts, [dict(name=name, scale=scale) for name, scale in scales.items()])
    contract['output_tree'] = [['scores.0', 'scores.1'], ['boxes.0', 'boxes.1']]
    return integers, contract


def test_each_output_has_its_scale_and_the_best_is_kept(tood):
    boxes, scores, labels = detect(*tood, 400, 100)
    assert boxes.tolist() == [[8, 8, 24, 16]]
    assert (scores.tolist(), labels.tolist()) == ([pytest.approx(0.8)], [0])


def test_small_boxes_are_measured_in_the_picture(tood):
    integers, contract = tood
    contract['postprocessing']['min_bbox_size'] = 8
    assert len(detect(integers, contract, 200, 100).boxes) == 0  # 8 px wide and high
    assert len(detect(integers, contract, 400, 200).boxes) == 1


def test_a_letterboxed_picture_gets_its_own_boxes(tood):
    integers, contract = tood
    contract['preprocessing']['resize'].update(keep_ratio=True, corner='center')
    # 100 x 100 px lie in the middle of 200 x 100.
    assert detect(integers, contract, 100, 100).boxes.tolist() == [[-46, 8, -38, 16]]


@pytest.mark.usefixtures('stock_suppression')
@pytest.mark.parametrize('case', ['retinanet', 'fcos', 'gfl', 'foveabox', 'reppoints', 'paa',
                                  'sabl', 'ga-retinanet', 'detr'])
def test_boxes_are_clipped_to_the_picture_where_the_contract_says_so(case, assert_same):
    spec = CASES[case]
    head = build_head(spec)
    facts = facts_of_head(head, spec.shape)
    tree, contract = quantized(outputs_of(spec, head), facts)
    # 110 x 96 of 160 x 96 px, in the top left corner.
    contract['preprocessing']['resize'].update(keep_ratio=True, corner='top_left', clip='picture')
    found = detect(contract.pop('integers'), contract, 440, 384)
    expected = stock_detections(head, tree, (96, 110), (0.25, 0.25))
    order = np.argsort(-expected.scores.numpy(), kind='stable')
    assert_same(found, *(getattr(expected, name).numpy()[order]
                         for name in ('bboxes', 'scores', 'labels')))
    assert np.nanmax(found.boxes[:, 2]) <= 440.001


def altered(contract, path, value):
    contract = copy.deepcopy(contract)
    *parents, last = path.split('.')
    place = contract
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return contract


@pytest.mark.parametrize('path, value, message', [
    ('postprocessing.family', 'os', "family: expected one of anchor_deltas, .*, found 'os'"),
    ('postprocessing.family', ['detr'], 'family: expected one of anchor_deltas'),
    ('postprocessing.family', None, 'without a family only sigmoid is known'),
    ('postprocessing.num_classes', None, 'expected a whole number above 0, found none'),
    ('postprocessing.num_classes', 0, 'num_classes: expected a whole number above 0, found 0'),
    ('postprocessing.score_thr', '0.05', 'score_thr: expected a finite number, found 0.05'),
    ('postprocessing.strides', [[8, 8], [16]], 'strides: expected for each level a list of 2 num'),
    ('postprocessing.strides', [[8, 8]], 'expected 2 or 3 lists of 1 maps, found lists of .2, 2'),
    ('postprocessing.nms.type', 'nms_match', 'nms: expected a table of type nms or soft_nms'),
    ('postprocessing.nms.sigma', 0.5, 'nms: expected a table of type nms or soft_nms'),
    ('postprocessing.nms.iou_threshold', None, 'nms: expected a table of type nms or soft_nms'),
    ('output_tree', [['scores.0', 'scores.2'], ['boxes.0', 'boxes.1']],
     "expected 'scores.2', found boxes.0"),
    ('output_tree', [['scores.0', 'scores.1']], 'expected 2 or 3 lists of 2 maps'),
    ('output_tree', ['scores.0', 'boxes.0'], 'found lists of .*no list'),
    ('output_tree', [['boxes.0', 'boxes.1'], ['scores.0', 'scores.1']],
     r'expected maps of \[1, 4\] channels, .*found \[\(1, 4, 2, 2\)'),
    ('output_tree', [['scores.0', 'scores.1'], ['boxes.1', 'boxes.0']],
     r'all of one height and width, found \[\(1, 1, 2, 2\), \(1, 4, 1, 1\)\]'),
])
def test_what_does_not_fit_is_refused(tood, path, value, message):
    integers, contract = tood
    with pytest.raises(BpuError, match=message):
        detect(integers, altered(contract, path, value), 400, 100)


def test_facts_of_several_levels_must_be_of_as_many():
    facts = dict(family='anchor_deltas', input_shape=[64, 64], num_classes=1, activation='sigmoid',
                 score_thr=0.05, nms_pre=10, strides=[[8, 8], [16, 16]], max_per_img=5,
                 min_bbox_size=None, nms=None, anchors=[[[0, 0, 8, 8]]],
                 coder=dict(type='tblr', normalizers=[1, 1, 1, 1], clip=True))
    with pytest.raises(BpuError, match="as many levels .* {'strides': 2, 'anchors': 1}"):
        detect({}, contract_of(facts, []), 10, 10)


SCRIPT = '''
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in NAMES:
            raise ImportError(name + ' is refused')

sys.meta_path.insert(0, Refuse())
import numpy as np
from mmdet_bpu.runtime.decoders import families, load_decoder
from mmdet_bpu.runtime.detections import detect

for family in families():
    load_decoder(family)
contract = dict(preprocessing=dict(resize=dict(height=10, width=10)),
                postprocessing=dict(scores='sigmoid', num_classes=1, max_per_img=1),
                outputs=[dict(name='bbox_preds', scale=0.5), dict(name='cls_scores', scale=1.0)])
found = detect(dict(cls_scores=np.int8([[[0], [3]]]),
                    bbox_preds=np.int8([[[1, 1, 1, 1], [1, 1, 2, 1]]])), contract, 20, 40)
print(len(families()), found.boxes.tolist(), found.labels.tolist())
'''


def test_the_host_needs_numpy_and_two_files_beside_the_folder(tmp_path):
    """As docs/decoding.md says: where OpenMMLab, torch, xDSL and the rest of us are not."""
    package = Path(mmdet_bpu.__file__).parent
    copied = tmp_path / 'mmdet_bpu'
    shutil.copytree(package / 'runtime', copied / 'runtime')
    shutil.copy(package / 'errors.py', copied)
    (copied / '__init__.py').write_text('')
    refused = {'mmdet', 'mmengine', 'mmcv', 'torch', 'xdsl', 'cv2', 'scipy', 'PIL'}
    done = subprocess.run([sys.executable, '-c', SCRIPT.replace('NAMES', str(refused))], text=True,
                          env=dict(os.environ, PYTHONPATH=str(tmp_path)), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{len(families())} [[0.0, 10.0, 20.0, 30.0]] [0]\n'


def test_importing_the_decoder_imports_nothing_else_of_ours():
    code = ("import sys, mmdet_bpu.runtime.detections\n"
            "print(sorted({name.partition('.')[2].partition('.')[0] for name in sys.modules\n"
            "              if name.startswith('mmdet_bpu.')}))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == "['errors', 'runtime', 'version']\n", done.stderr
