"""Which heads of mmdet have facts for a decoder, and what settings those facts refuse."""
import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import ConfigDict

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families import refused_heads
from mmdet_bpu.families.decoding_facts import nms_facts
from mmdet_bpu.runtime.decoders import families, load_decoder
from tests.stock_heads import CASES, build_head, config_of, facts_of_head, families_by_head

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs' / 'decoding.md'


def registered_heads():
    import mmdet.models.dense_heads as heads
    from mmdet.registry import MODELS
    return {name for name, value in vars(heads).items() if inspect.isclass(value)
            and MODELS.get(name) is value}


def test_every_head_of_mmdet_is_served_or_refused_with_a_reason():
    assert set(families_by_head()) | set(refused_heads.REASONS) == registered_heads()


def test_every_served_head_is_compared_with_its_decoder():
    compared = {case.head.get('type', config_of(case).bbox_head.type) for case in CASES.values()}
    # Bases of others, in no stock config; they decode by the same methods.
    served = set(families_by_head()) - set(refused_heads.REASONS)
    assert served - compared == {'AnchorHead', 'GuidedAnchorHead'}


def test_bases_decode_by_the_methods_of_their_heads():
    from mmdet.models import dense_heads as heads
    for base, head in ((heads.AnchorHead, heads.RetinaHead),
                       (heads.GuidedAnchorHead, heads.GARetinaHead)):
        for name in ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process'):
            assert getattr(base, name) is getattr(head, name)


def test_facts_are_those_of_the_built_head():
    case = CASES['retinanet']
    facts = facts_of_head(build_head(case), case.shape)
    assert facts['family'] == 'anchor_deltas' and facts['activation'] == 'sigmoid'
    assert facts['input_shape'] == [96, 160]
    assert facts['strides'] == [[8, 8], [16, 16], [32, 32], [64, 64], [128, 128]]
    # Octave scales 4 x 2^(i/3), ratios h / w: the square of the first scale is 32 px wide.
    assert [len(level) for level in facts['anchors']] == [9] * 5
    assert facts['anchors'][0][3] == [-16, -16, 16, 16]
    assert facts['nms'] == dict(type='nms', iou_threshold=0.5, offset=0, score_threshold=0.0,
                                max_num=-1, class_agnostic=False, split_thr=10000)
    assert (facts['nms_pre'], facts['max_per_img'], facts['min_bbox_size']) == (1000, 100, 0)


def test_softmax_is_stated():
    case = CASES['detr']
    assert facts_of_head(build_head(case), case.shape)['activation'] == 'softmax'


def test_old_and_left_out_options_of_suppression_are_filled_in():
    assert nms_facts(ConfigDict(iou_thr=0.6))['iou_threshold'] == 0.6
    assert nms_facts(ConfigDict(type='soft_nms', method='gaussian'))['min_score'] == 1e-3
    assert nms_facts(None) is None


@pytest.mark.parametrize('nms, message', [
    (dict(type='nms_match', iou_threshold=0.5), "expected nms or soft_nms, found 'nms_match'"),
    (dict(type='nms', iou_threshold=0.5, sigma=1), 'options of mmcv\'s nms, found sigma'),
    (dict(type='nms'), 'iou_threshold: expected a number, found none')])
def test_unknown_suppression_is_refused(nms, message):
    with pytest.raises(BpuError, match=message):
        nms_facts(ConfigDict(nms))


@pytest.mark.parametrize('case, change, message', [
    ('retinanet', dict(bbox_coder=dict(_delete_=True, type='BucketingBBoxCoder', num_buckets=14,
                                       scale_factor=3.0)), 'coder: .*found BucketingBBoxCoder'),
    ('fcos', dict(bbox_coder=dict(type='TBLRBBoxCoder')),
     'expected DistancePointBBoxCoder, found TBLRBBoxCoder'),
    ('retinanet', dict(anchor_generator=dict(_delete_=True, type='MlvlPointGenerator',
                                             strides=[8, 16, 32, 64, 128])),
     'makes anchors, found MlvlPointGenerator'),
    ('retinanet', dict(loss_cls=dict(_delete_=True, type='CrossEntropyCustomLoss',
                                     use_sigmoid=True, num_classes=8)),
     'the scores of CrossEntropyCustomLoss have no decoder'),
])
def test_heads_of_other_parts_are_refused(case, change, message):
    import dataclasses
    head = build_head(dataclasses.replace(CASES[case], head=change))
    with pytest.raises(BpuError, match=message):
        facts_of_head(head, (96, 160))


def rows_of_the_document():
    """Names in each cell of each row of the tables in docs/decoding.md."""
    return [[re.findall(r'`(\w+)`', cell) for cell in line.split('|')[1:-1]]
            for line in DOCUMENT.read_text(encoding='utf-8').splitlines() if line.startswith('| `')]


def test_the_document_lists_every_head_under_its_decoder():
    served = {name: family.name for name, family in families_by_head().items()
              if name not in refused_heads.REASONS}
    rows = rows_of_the_document()
    assert {head: row[0][0] for row in rows if len(row) == 3 for head in row[1]} == served
    assert {head for row in rows if len(row) == 2 for head in row[0]} == set(refused_heads.REASONS)


def test_the_document_names_the_facts_of_each_decoder():
    named = {row[0][0]: set(row[2]) for row in rows_of_the_document() if len(row) == 3}
    named['paa'].remove('score_voting')  # read after decoding
    assert named == {family: set(load_decoder(family).FACTS) for family in families()}
