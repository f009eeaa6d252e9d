"""A detector is captured once per process and command; what was captured is kept and compared."""
import pytest
import torch
from torch import nn

from mmdet_bpu.analysis.model_check import list_sites
from mmdet_bpu.engine.prepared import prepare_from
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph import deploy_graph
from mmdet_bpu.graph.saved_graph import KEY
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import prepare, quantized_graphs, saved_form, set_quant_state
from tests.stock_detectors import calibrated, toy  # noqa: F401  (fixtures)

SHAPE = (8, 8)
SETTINGS = dict(input_shape=SHAPE, input_format='rgb')


@pytest.fixture
def captures(monkeypatch):
    """How often a detector was captured since the fixture was made."""
    calls = []
    stock = deploy_graph.capture
    monkeypatch.setattr(deploy_graph, 'capture',
                        lambda *args: (calls.append(args), stock(*args))[1])
    return calls


def body(self, image):
    # A constant that is computed from something learned: it cannot be read off a parameter.
    return self.last(torch.relu(self.norm(self.conv(image)))) * (self.gain * 2)


def detector(toy):  # noqa: F811
    torch.manual_seed(0)
    model = toy(body, conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4),
                last=nn.Conv2d(4, 2, 1))
    model.gain = nn.Parameter(torch.tensor([1.5, 0.5]).view(2, 1, 1))
    return model


def computed(model):
    """The one constant that is computed from a parameter."""
    value, = (info.data for info in quantized_graphs(model)[0].graph.values.values()
              if info.learned and not info.origin)
    return value


def checkpoint_of(model):
    return dict(state_dict=model.state_dict(), meta=dict(bpu_stage='calibration'),
                **{KEY: saved_form(model)})


def test_the_sites_of_a_float_detector_are_listed_with_one_capture(toy, captures):  # noqa: F811
    assert list_sites(detector(toy), SETTINGS)
    assert len(captures) == 1


def test_from_a_checkpoint_to_hbir_is_one_capture(toy, calibrated, captures):  # noqa: F811
    model = calibrated(prepare(detector(toy), SETTINGS), torch.randn(1, 3, *SHAPE))
    expected = str(export_networks(quantized_graphs(model)))
    assert len(captures) == 1
    again = prepare_from(detector(toy), SETTINGS, checkpoint_of(model), 'x.pth')
    assert str(export_networks(quantized_graphs(again))) == expected
    assert len(captures) == 2


def test_weights_that_change_after_the_capture_reach_the_export(toy, calibrated):  # noqa: F811
    model = calibrated(prepare(detector(toy), SETTINGS), torch.randn(1, 3, *SHAPE))
    assert torch.equal(computed(model), model.gain.detach() * 2)
    with torch.no_grad():
        model.gain.mul_(3)
        model.last.weight.mul_(2)
    assert torch.equal(computed(model), model.gain.detach() * 2)
    values = quantized_graphs(model)[0].graph.values.values()
    assert any(info.origin == 'last.weight' and torch.equal(info.data, model.last.weight)
               for info in values)


def test_a_checkpoint_of_version_0_1_is_prepared_as_before(toy, calibrated):  # noqa: F811
    model = calibrated(prepare(detector(toy), SETTINGS), torch.randn(1, 3, *SHAPE))
    old = dict(state_dict=model.state_dict(), meta=dict(bpu_stage='calibration'))
    again = prepare_from(detector(toy), SETTINGS, old, 'x.pth')
    assert str(export_networks(quantized_graphs(again))) == str(
        export_networks(quantized_graphs(model)))


def test_a_copy_exports_its_own_weights(toy, calibrated):  # noqa: F811
    import copy
    model = calibrated(prepare(detector(toy), SETTINGS), torch.randn(1, 3, *SHAPE))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.last.weight.mul_(2)
    first, second = (next(info.data for info in quantized_graphs(m)[0].graph.values.values()
                          if info.origin == 'last.weight') for m in (model, twin))
    assert torch.equal(first * 2, second)


def test_a_state_that_is_none_is_refused(toy):  # noqa: F811
    with pytest.raises(BpuError, match="'quantise': expected one of off, observe"):
        set_quant_state(prepare(detector(toy), SETTINGS), 'quantise')
