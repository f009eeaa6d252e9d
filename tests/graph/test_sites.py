"""Identities of calls: independent of what happens elsewhere, and of the mode."""
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.graph.capture import capture
from mmdet_bpu.quantization import prepare, quantization_of, set_quant_state
from mmdet_bpu.quantization.fused.composites import COUNTED
from mmdet_bpu.graph.deploy_graph import open_attention
from mmdet_bpu.graph.regions import region_class
from mmdet_bpu.graph.sites import SiteTracker, active_tracker, calling_frame, tracking

IMAGE = torch.zeros(1, 3, 4, 4)


class Block(nn.Module):
    """One relu that is called in two places, as in a ResNet block."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.relu(x)
        return self.relu(self.conv(x))


class Optional(nn.Module):
    """Does something only while ``active``."""

    def __init__(self) -> None:
        super().__init__()
        self.active = False

    def forward(self, x):
        if self.active:
            x = torch.exp(F.relu(x))
        return x


def keys_by_path(model):
    nodes = [n for n in capture(model, IMAGE).graph.nodes if 'key' in n.meta]
    return {path: [n.meta['key'] for n in nodes if n.meta['path'] == path]
            for path in {n.meta['path'] for n in nodes}}


def test_calls_of_one_module_in_two_places_are_two_sites(toy):
    model = toy(lambda self, image: self.block(image), block=Block())
    sites = capture(model, IMAGE).sites()
    assert sites == ['block.relu/relu.0', 'block.conv/conv2d.0', 'block.relu/relu.1']


def test_a_branch_taken_elsewhere_shifts_no_key(toy):

    def body(self, image):
        x = self.first(image)
        x = self.optional(x)
        for _ in range(2):
            x = self.second(x)
        return x

    model = toy(body, first=Block(), optional=Optional(), second=Block())
    before = keys_by_path(model)
    model.optional.active = True
    after = keys_by_path(model)
    assert set(after) - set(before) == {'optional'}
    assert all(after[path] == keys for path, keys in before.items())


def test_the_same_module_called_twice_in_a_loop_has_two_sets_of_keys(toy):

    def body(self, image):
        for _ in range(2):
            image = self.block(image)
        return image

    keys = keys_by_path(toy(body, block=Block()))
    assert len(set(keys['block.conv'])) == 2


def test_what_comes_next_is_known_and_what_comes_instead_is_not_mistaken_for_it(toy):

    def body(self, image):
        for _ in range(self.rounds):
            image = F.relu(image)
        return self.optional(image)

    model = toy(body, optional=Optional())
    model.rounds = 1
    tracker, keys = SiteTracker(model), []

    class Keys(TorchFunctionMode):

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if tracker.stack:
                keys.append(tracker.call(func, calling_frame()).key)
            return func(*args, **(kwargs or {}))

    def of(rounds, active):
        model.rounds, model.optional.active = rounds, active
        keys.clear()
        with tracking(tracker), Keys(), tracker.region('region'):
            model(IMAGE)
        return list(keys)

    first = {case: of(*case) for case in ((1, False), (3, True), (2, False), (2, True))}
    assert [len(found) for found in first.values()] == [1, 5, 2, 4]
    assert first[3, True][:2] == first[2, False] and first[2, True][2:] == first[3, True][3:]
    assert len(set(first[3, True])) == 5
    for case in ((2, True), (1, False), (3, True), (2, False)):
        assert of(*case) == first[case], 'the same sites whatever ran before'


def test_modules_that_are_not_registered_still_have_keys_of_their_own(toy):
    loose = [nn.ReLU()]
    model = toy(lambda self, image: loose[0](image + 1))
    assert capture(model, IMAGE).sites() == ['/add.0', '/relu.0']


class Fired(dict):
    """A plan that notes which of its sites are asked for."""

    def __init__(self, plan) -> None:
        super().__init__(plan)
        self.fired = set()

    def get(self, key):
        if key in self:
            self.fired.add(key)
        return super().get(key)


@pytest.mark.parametrize('variant', ['', '-refine', '-refine-twostage'])
def test_loss_prediction_and_tensor_mode_have_the_same_sites(small_detector, losses_of, variant,
                                                             monkeypatch):
    for function in list(COUNTED):
        monkeypatch.delitem(COUNTED, function)  # or the sites inside are counted at once
    model = prepare(small_detector(variant), dict(input_shape=(64, 64)))
    set_quant_state(model, 'observe')
    quant = quantization_of(model)
    image = torch.randn(2, 3, 64, 64)
    samples = example_samples(2, (64, 64))

    def fired(run):
        quant.plan = Fired(quant.plan)
        run()
        return quant.plan.fired

    with torch.no_grad():
        assert fired(lambda: model.forward(image, samples, mode='tensor')) == set(quant.plan)
        assert fired(lambda: model.forward(image, samples, mode='predict')) == set(quant.plan)
    assert fired(lambda: losses_of(model, image)) == set(quant.plan)


def test_calls_outside_the_tensor_path_have_no_site(toy):
    model = toy(lambda self, image: image + 1)
    tracker = SiteTracker(model)
    with tracking(tracker):
        torch.ones(2) * 2
        assert tracker.stack == []
        assert active_tracker() is tracker
    assert active_tracker() is None


def test_a_tracker_is_not_seen_by_other_threads(toy):
    seen = []
    with tracking(SiteTracker(toy(lambda self, image: image))):
        thread = threading.Thread(target=lambda: seen.append(active_tracker()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_an_error_inside_the_tensor_path_leaves_nothing_behind(toy):

    def body(self, image):
        return self.conv(image[:, :2])

    model = toy(body, conv=nn.Conv2d(3, 3, 1))
    for _ in range(2):
        try:
            capture(model, IMAGE)
        except RuntimeError:
            pass
        assert active_tracker() is None
        assert type(model).__name__ == 'ToyDetector'
        assert not hasattr(type(model), 'bpu_stock_class')


def test_region_classes_are_made_once_and_keep_their_name():
    first = region_class(Block, ('forward', ), 'neck.')
    assert first is region_class(Block, ('forward', ), 'neck.')
    assert first.__name__ == 'Block' and issubclass(first, Block)
    assert first.bpu_stock_class is Block


def test_open_attention_changes_no_site_name(small_detector):
    model = small_detector('')
    open_attention(model)
    sites = capture(model, torch.zeros(1, 3, 64, 64)).sites()
    assert 'encoder.layers.0.self_attn/grid_sample.0' in sites
    assert 'decoder.layers.1.cross_attn/grid_sample.1' in sites
