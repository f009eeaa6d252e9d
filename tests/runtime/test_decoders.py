"""Every decoder against the stock head of mmdet whose outputs it decodes."""
import numpy as np
import pytest

from mmdet_bpu.runtime.decoders import families, load_decoder
from mmdet_bpu.runtime.detections import detect
from mmdet_bpu.runtime.facts import COMMON, check_facts
from tests.stock_heads import (CASES, as_arrays, build_head, config_of, facts_of_head,
                               families_by_head, outputs_of, quantized, stock_detections)

# Their stock post-processing has no way around its suppression.
ALWAYS_SUPPRESSED = {'paa', 'paa-without-voting', 'lad', 'ga-retinanet'}
# Their stock post-processing does not suppress.
NEVER_SUPPRESSED = {'detr', 'conditional-detr', 'dab-detr', 'deformable-detr', 'dino', 'centernet'}
PICTURE = (412, 233)  # width, height in px


def arrays_of(found):
    return [getattr(found, name).numpy() for name in ('bboxes', 'scores', 'labels')]


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_candidates_are_those_of_the_stock_head(case, assert_same):
    if case in ALWAYS_SUPPRESSED:
        pytest.skip('the stock head always suppresses')
    spec = CASES[case]
    head = build_head(spec)
    tree, facts = outputs_of(spec, head), facts_of_head(head, spec.shape)
    decoder = load_decoder(facts['family'])
    check_facts(facts, {**COMMON, **decoder.FACTS})
    found = decoder.decode(as_arrays(tree, facts['family']), facts)

    # Small boxes go after decoding; here they stay.
    head.test_cfg = type(head.test_cfg)(head.test_cfg, min_bbox_size=-1)
    options = {} if facts['family'] == 'detr' else dict(with_nms=False)
    expected = stock_detections(head, tree, spec.shape, **options)
    assert_same(found, *arrays_of(expected))
    assert len(found.scores) >= 15 and len(np.unique(found.labels)) >= 5


@pytest.mark.usefixtures('stock_suppression')
def test_detections_are_those_of_the_stock_head(case, assert_same):
    spec = CASES[case]
    head = build_head(spec)
    tree, contract = quantized(outputs_of(spec, head, seed=1), facts_of_head(head, spec.shape))
    found = detect(contract.pop('integers'), contract, *PICTURE)

    scale = spec.shape[1] / PICTURE[0], spec.shape[0] / PICTURE[1]
    expected = stock_detections(head, tree, spec.shape, scale)
    boxes, scores, labels = arrays_of(expected)
    if 'paa' in case or case == 'lad':  # voting leaves them class by class
        order = np.argsort(-scores, kind='stable')
        boxes, scores, labels = boxes[order], scores[order], labels[order]
    assert_same(found, boxes, scores, labels)
    assert len(found.scores) >= 15 and len(np.unique(found.labels)) >= 5
    assert (np.diff(found.scores) <= 0).all()
    candidates = load_decoder(contract['postprocessing']['family']).decode(
        as_arrays(tree, contract['postprocessing']['family']), contract['postprocessing'])
    best = np.sort(candidates.scores)[::-1][:len(scores)]
    assert np.allclose(best, found.scores, rtol=1e-5, atol=0) == (case in NEVER_SUPPRESSED)


def test_every_decoder_has_a_case():
    kinds = {config_of(case).bbox_head.type for case in CASES.values()}
    served = {families_by_head()[kind].name for kind in kinds}
    assert served == set(families())
