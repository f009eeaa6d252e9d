"""Weights load strictly: keys, shapes, types, and numbers that are numbers."""
import math

import pytest
import torch
from torch import nn

from mmdet_bpu.engine import loading
from mmdet_bpu.engine.loading import check_averages, load_strictly
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.errors import BpuError


class WithBuffers(nn.Module):
    """A normalised layer, a mask, and a buffer that is infinite from the start."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.register_buffer('mask', torch.tensor([True, False]))
        self.register_buffer('bounds', torch.tensor([0.0, math.inf]))


@pytest.fixture
def notes(monkeypatch):
    """What is logged while weights are loaded."""
    noted = []
    monkeypatch.setattr(loading, 'print_log', lambda message, *_: noted.append(message))
    return noted


def state_of(model, **changed):
    state = dict(model.state_dict())
    state.update({name.replace('__', '.'): value for name, value in changed.items()})
    return state


def test_missing_unexpected_and_misshapen_keys_are_all_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = model.state_dict()
    del state['0.bias']
    state['extra'] = torch.zeros(1)
    state['1.weight'] = torch.zeros(5, 5)
    with pytest.raises(BpuError) as error:
        load_strictly(model, state, 'some.pth')
    for words in ('some.pth', '1 missing: 0.bias', '1 unexpected: extra', '1.weight (model (1, 3)'):
        assert words in str(error.value)


def test_a_wrapper_prefix_is_dropped():
    model = nn.Linear(2, 3)
    state = {f'module.{key}': value + 1 for key, value in model.state_dict().items()}
    load_strictly(model, state, 'some.pth')
    assert torch.equal(model.weight, state['module.weight'])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_cast_with_a_note(dtype, notes):
    model = WithBuffers()
    weight = torch.tensor([0.5, -2.0]).view(2, 1, 1, 1)
    load_strictly(model, state_of(model, conv__weight=weight.to(dtype)), 'some.pth')
    assert torch.equal(model.conv.weight, weight) and model.conv.weight.dtype == torch.float32
    name = str(dtype).removeprefix('torch.')
    assert notes == [f'1 tensors of some.pth are {name} and are cast to float32']


def test_a_model_saved_in_half_as_a_whole_is_loaded(notes):
    model = WithBuffers()
    model.norm.num_batches_tracked.fill_(7)
    halves = {key: value.half() for key, value in model.state_dict().items()}
    twin = WithBuffers()
    load_strictly(twin, halves, 'some.pth')
    assert twin.norm.num_batches_tracked == 7 and twin.mask.tolist() == [True, False]
    assert '1 tensors of some.pth are float16 and are cast to int64' in notes


@pytest.mark.parametrize('dtype', [
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_another_type_is_refused_by_name(dtype):
    model = WithBuffers()
    before = model.conv.weight.clone()
    state = state_of(model, conv__weight=torch.ones(2, 1, 1, 1).to(dtype))
    with pytest.raises(BpuError) as error:
        load_strictly(model, state, 'some.pth')
    name = str(dtype).removeprefix('torch.')
    assert f'conv.weight (model float32, file {name})' in str(error.value)
    assert torch.equal(model.conv.weight, before)


@pytest.mark.parametrize('name, value', [
    ('norm__num_batches_tracked', torch.tensor(0.5)),
    ('norm__num_batches_tracked', torch.tensor(math.inf)),
    ('norm__num_batches_tracked', torch.tensor(True)),
    ('mask', torch.tensor([1, 0])),
    ('mask', torch.tensor([0.5, 0])),
    ('conv__weight', torch.ones(2, 1, 1, 1).to_sparse()),
    ('conv__weight', torch.ones(2, 1, 1, 1, device='meta')),
    ('conv__weight', torch.quantize_per_tensor(torch.ones(2, 1, 1, 1), 0.1, 0, torch.qint8))])
def test_what_is_no_value_of_the_tensor_is_refused_by_name(name, value):
    model = WithBuffers()
    with pytest.raises(BpuError, match=name.replace('__', r'\.')):
        load_strictly(model, state_of(model, **{name: value}), 'some.pth')


@pytest.mark.parametrize('value', ['text', 3, None, [1.0, 2.0]])
def test_what_is_no_tensor_is_refused_by_name(value):
    model = WithBuffers()
    with pytest.raises(BpuError, match='conv.weight'):
        load_strictly(model, state_of(model, conv__weight=value), 'some.pth')


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('name', ['conv.weight', 'norm.running_var'])
def test_a_value_that_is_no_number_is_refused_by_name(name, value):
    model = WithBuffers()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state[name].view(-1)[1] = value
    with pytest.raises(BpuError) as error:
        load_strictly(model, state, 'some.pth')
    count = '1 NaN, 0 infinite' if math.isnan(value) else '0 NaN, 1 infinite'
    assert f'some.pth holds values that are no numbers: {name} ({count} of 2)' in str(error.value)


def averaged(model, **changes):
    """A checkpoint of averaged weights, as mmengine's hook saves it."""
    averages = {f'module.{key}': value.clone() for key, value in model.state_dict().items()}
    for name, value in changes.items():
        averages[f'module.{name.replace("__", ".")}'] = value
    return dict(state_dict=model.state_dict(), ema_state_dict=dict(averages, steps=torch.tensor(3)))


def test_averages_that_fit_pass():
    model = WithBuffers()
    check_averages(model, averaged(model), 'some.pth')
    check_averages(model, dict(state_dict={}), 'some.pth')  # a run without them


@pytest.mark.parametrize('value, words', [
    (torch.tensor([math.nan, 0.0]), 'no numbers: conv.bias .1 NaN'),
    (torch.tensor([1, 2]), 'cannot take as weights: conv.bias'),
    (torch.zeros(3), 'of another shape: conv.bias'), (None, 'of another shape: conv.bias')])
def test_averages_that_do_not_fit_are_named(value, words):
    model = WithBuffers()
    with pytest.raises(BpuError, match=r'some.pth \(ema_state_dict\) (.|\n)*' + words):
        check_averages(model, averaged(model, conv__bias=value), 'some.pth')


def test_a_name_that_the_averages_alone_have_or_lack_is_refused():
    model = WithBuffers()
    with pytest.raises(BpuError, match='1 unexpected: other'):
        check_averages(model, averaged(model, other=torch.zeros(1)), 'some.pth')
    given = averaged(model)
    given['state_dict'] = {}
    with pytest.raises(BpuError, match='missing'):
        check_averages(model, given, 'some.pth')
    with pytest.raises(BpuError, match='expected ema_state_dict to be a dict of weights, found list'):
        check_averages(model, dict(state_dict={}, ema_state_dict=[1]), 'some.pth')


def test_a_wider_float_that_overflows_is_refused():
    model = WithBuffers()
    state = state_of(model, conv__bias=torch.tensor([1e300, 0], dtype=torch.float64))
    with pytest.raises(BpuError, match='conv.bias .0 NaN, 1 infinite'):
        load_strictly(model, state, 'some.pth')


def test_a_parameter_that_memory_left_infinite_is_no_excuse():
    model = WithBuffers()
    model.conv.bias.data.fill_(math.nan)  # as constructors leave it that initialise later
    with pytest.raises(BpuError, match='conv.bias'):
        load_strictly(model, state_of(model), 'some.pth')


def test_two_names_of_one_weight_are_refused():
    model = WithBuffers()
    state = state_of(model, **{'module.conv.bias': torch.zeros(2)})
    with pytest.raises(BpuError, match='both conv.bias and module.conv.bias'):
        load_strictly(model, state, 'some.pth')


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(BpuError, match='found the key 3'):
        load_strictly(WithBuffers(), {3: torch.zeros(1)}, 'some.pth')


def test_another_architecture_is_refused(staged, trained, tmp_path):
    source = str(trained / 'tiny_calibration' / 'epoch_1.pth')
    with pytest.raises(BpuError, match='is of another detector than this .*: it has the batch norm '
                                       'backbone.bn1 folded .* backbone.bn1 is not there'):
        BPURunner.from_cfg(staged('qat', tmp_path, load_from=source,
                                  model__backbone__norm_cfg=dict(type='GN', num_groups=1)))
