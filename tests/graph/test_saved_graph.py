"""The quantized graph in a checkpoint: public names, equal structure or a named refusal."""
import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.saved_graph import KEY, SavedGraph
from mmdet_bpu.quantization import prepare, quantized_graphs, saved_form
from mmdet_bpu.quantization.prepare import fold_saved

SHAPE = (8, 8)
SETTINGS = dict(input_shape=SHAPE, input_format='rgb')


def body(self, image):
    return torch.sigmoid(self.second(torch.relu(self.norm(self.first(image)))))


def modules(channels=4):
    torch.manual_seed(0)
    return dict(first=nn.Conv2d(3, channels, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels), second=nn.Conv2d(channels, 2, 1))


@pytest.fixture
def saved(toy, calibrated):
    model = calibrated(prepare(toy(body, **modules()), SETTINGS), torch.randn(1, 3, *SHAPE))
    return model, saved_form(model)


def restored(toy, plain, settings=SETTINGS, body=body, **changed):
    model = toy(body, **modules(**changed))
    graph = SavedGraph.of({KEY: plain}, 'x.pth')
    fold_saved(model, graph)
    return prepare(model, settings, graph)


def test_it_is_plain_data_without_code_lines(saved):
    text = json.dumps(saved[1])
    assert '.py' not in text and 'first/conv2d.0' in text


def test_a_model_of_equal_structure_takes_it_over(toy, saved):
    model, plain = saved
    again = restored(toy, json.loads(json.dumps(plain)))
    assert saved_form(again) == plain
    again.load_state_dict(model.state_dict())
    first, second = (quantized_graphs(m)[0].rows for m in (model, again))
    assert first == second and all(row['calibrated'] for row in first)


def test_decisions_of_the_checkpoint_count_not_those_of_the_template(toy, saved):
    plain = copy.deepcopy(saved[1])
    row = next(r for r in plain['networks'][0]['configs'] if r['site'] == '/relu.0')
    assert row['dtype'] == 'int16'
    row['dtype'] = 'int8'
    again = restored(toy, plain)
    quantizer = again.quant.quantizer(row['quantizer'])
    assert quantizer.dtype == 'int8'


@pytest.mark.parametrize('settings, changed, message', [
    (dict(SETTINGS, input_shape=(8, 16)), {}, r'input_shape was \(8, 8\), the config says \(8, 16\)'),
    (dict(SETTINGS, input_format='bgr'), {}, 'input_format was rgb, the config says bgr'),
    (SETTINGS, dict(channels=5), r'first differs at first/conv2d.0: shape \[1, 4, 8, 8\] -> '
     r'\[1, 5, 8, 8\]'),
    (dict(SETTINGS, qconfig=[dict(site='first/*', dtype='int16')]), {}, 'bpu.qconfig was'),
], ids=['shape', 'colours', 'width', 'rules'])
def test_another_model_is_refused_by_the_first_difference(toy, saved, settings, changed, message):
    with pytest.raises(BpuError, match=f'checkpoint x.pth does not fit this config: .*{message}'):
        restored(toy, saved[1], settings, **changed)


def test_a_site_too_many_is_named(toy, saved):
    def longer(self, image):
        return F.max_pool2d(body(self, image), 2)

    with pytest.raises(BpuError, match='max_pool2d.0 is in the model only'):
        restored(toy, saved[1], body=longer)


@pytest.mark.parametrize('plain, message', [
    (dict(version=99), 'version 99'), ([], 'version None'), (dict(version=1), 'damaged')])
def test_what_is_no_saved_graph_is_refused(plain, message):
    with pytest.raises(BpuError, match=message):
        SavedGraph.of({KEY: plain}, 'x.pth')


def test_an_altered_structure_is_refused(saved):
    plain = copy.deepcopy(saved[1])
    plain['networks'][0]['values'][1]['shape'] = [1, 9, 8, 8]
    with pytest.raises(BpuError, match='damaged'):
        SavedGraph.of({KEY: plain}, 'x.pth')


def test_a_checkpoint_of_version_0_1_has_none():
    assert SavedGraph.of({}, 'x.pth') is None
