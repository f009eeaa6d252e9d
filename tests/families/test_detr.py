"""Facts about DETR-like detectors."""
import json

import pytest
import torch
from mmengine.config import Config
from torch.overrides import TorchFunctionMode

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.fitting_shape import require_fitting_shape
from mmdet_bpu.graph.regions import with_regions
from mmdet_bpu.graph.sites import SiteTracker, calling_frame, function_name, tracking
from tests.stock_families import DETRS, SHAPE

CFG = Config(dict(bpu=dict(input_shape=(64, 96))))
SCORES = {'detr': 'softmax', **{kind: 'sigmoid' for kind in DETRS if kind != 'detr'}}


@pytest.mark.parametrize('kind', DETRS)
def test_the_contract_says_what_the_head_says(stock, kind):
    model = stock(kind)
    contract = FAMILIES.of(model).contract(model, CFG)
    assert contract == dict(
        by='host', family='detr', scores=SCORES[kind], activation=SCORES[kind], num_classes=80,
        max_per_img=15, input_shape=[64, 96], min_bbox_size=None, nms=None,
        boxes='cx, cy, w, h in [0, 1] of the resized image')
    assert json.loads(json.dumps(contract)) == contract


def test_without_a_limit_every_query_is_a_box(new_stock):
    model = new_stock('detr')
    model.bbox_head.test_cfg = {}
    model.test_cfg = {}
    assert FAMILIES.of(model).contract(model, CFG)['max_per_img'] is None


class Keys(TorchFunctionMode):
    """Notes the keys of the linear layers that run inside regions."""

    def __init__(self, tracker):
        super().__init__()
        self.tracker, self.seen = tracker, set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.tracker.stack:
            key = self.tracker.call(func, calling_frame()).key
            if function_name(func) == 'linear':
                self.seen.add(key)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def keys_of(model, image, mode):
    tracker = SiteTracker(model)
    keys = Keys(tracker)
    regions = FAMILIES.of(model).regions(model)
    with with_regions(model, regions), tracking(tracker), keys:
        model.forward(image, example_samples(1, SHAPE), mode=mode)
    return keys.seen


@pytest.mark.parametrize('kind', DETRS)
def test_prediction_makes_every_call_that_was_captured(new_stock, picture, kind):
    model = new_stock(kind)
    FAMILIES.of(model).open(model)
    captured = keys_of(model, picture, 'tensor')
    assert captured == keys_of(model, picture, 'predict')


def test_stock_prediction_of_conditional_detr_does_not(new_stock, picture):
    model = new_stock('conditional')
    assert keys_of(model, picture, 'tensor') != keys_of(model, picture, 'predict')


def test_opening_changes_no_box_and_no_weight(new_stock, picture):
    model = new_stock('conditional')
    with torch.no_grad():
        expected = model.predict(picture, example_samples(1, SHAPE))[0].pred_instances
    names, head = list(model.state_dict()), type(model.bbox_head)
    for _ in range(2):
        FAMILIES.of(model).open(model)
    with torch.no_grad():
        found = model.predict(picture, example_samples(1, SHAPE))[0].pred_instances
    assert torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.scores, expected.scores)
    assert list(model.state_dict()) == names
    assert isinstance(model.bbox_head, head) and type(model.bbox_head).__name__ == head.__name__


@pytest.mark.parametrize('kind, classes', [('detr', 1), ('deformable', 80)])
def test_more_boxes_than_the_queries_give_are_refused(new_stock, kind, classes):
    model = new_stock(kind)
    family, most = FAMILIES.of(model), model.num_queries * classes
    for count, words in ((most, None), (most + 1, f'expected at most {most}, as many boxes as'),
                         (-1, 'expected a positive integer, found -1'), (0, 'found 0'),
                         (True, 'found True'), (1.5, 'found 1.5')):
        model.bbox_head.test_cfg = dict(max_per_img=count)
        reason = family.refuse(model, CFG)
        assert (reason is None) if words is None else (
            f'field model.test_cfg.max_per_img: {words}'.partition(': ')[0] in reason
            and words in reason), reason


def test_a_two_stage_detector_needs_as_many_positions_as_queries(new_stock):
    model = new_stock('dino')
    assert model.as_two_stage
    require_fitting_shape(model, SHAPE)
    model.num_queries = 10_000
    with pytest.raises(BpuError, match='field bpu.input_shape: .*num_queries = 10000, found .* with'):
        require_fitting_shape(model, SHAPE)
