"""Memory is overwritten only where neither a reader nor a backward pass is left."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.quantization import fake_quant, prepare, quantization_of
from mmdet_bpu.quantization.learned_grid import LearnedOnGrid
from mmdet_bpu.quantization.owned_results import is_unsaved, makes_new
from tests.stock_detectors import calibrate

SHAPE = (8, 8)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('func', [F.relu, F.dropout, torch.reshape, torch.Tensor.view, torch.exp,
                                  torch.softmax, torch.Tensor.contiguous])
def test_views_and_results_that_are_saved_are_not_overwritten(func):
    assert not makes_new(func)


@pytest.mark.parametrize('make, unsaved', [
    (lambda x: F.conv2d(x, torch.ones(1, 3, 1, 1)), True), (lambda x: x + 1, True),
    (lambda x: LearnedOnGrid.apply(x, torch.zeros(1), torch.ones(1), -128, 127), True),
    (torch.sigmoid, False), (torch.exp, False), (lambda x: (x * 2)[0], False),
    (lambda x: x, False)])
def test_what_backward_passes_read_is_known(make, unsaved):
    x = make(IMAGE.clone().requires_grad_())
    assert is_unsaved(x) == unsaved
    with torch.no_grad():
        assert is_unsaved(x)


def test_a_relu_in_place_behind_a_saved_result_trains(toy):
    """``exp`` keeps its result for the backward pass."""

    def body(self, image):
        return F.relu(torch.exp(self.conv(image)), inplace=True)

    model = prepare(toy(body, conv=nn.Conv2d(3, 3, 1)),
                    dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    calibrate(model, IMAGE).train()(IMAGE).sum().backward()
    assert model.conv.weight.grad.abs().sum() > 0


def test_a_weight_that_several_calls_read_is_rounded_once_a_forward(toy, monkeypatch):

    def body(self, image):
        return self.conv(self.conv(self.conv(image)))

    model = prepare(toy(body, conv=nn.Conv2d(3, 3, 1)),
                    dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    calibrate(model, IMAGE).train()
    rounded, calls = fake_quant._rounded_weight, []
    monkeypatch.setattr(fake_quant, '_rounded_weight',
                        lambda *given: calls.append(given) or rounded(*given))

    def gradient():
        model.zero_grad()
        calls.clear()
        model(IMAGE).sum().backward()
        return model.conv.weight.grad.clone()

    apart, together = gradient(), gradient()  # the first forward finds out
    assert len(calls) == 1
    torch.testing.assert_close(together, apart)
    with torch.no_grad():
        before = model(IMAGE)
        model.conv.weight.data.mul_(2)
        assert not torch.equal(model(IMAGE), before), 'the next forward sees a changed weight'
    assert quantization_of(model).untrained == []
