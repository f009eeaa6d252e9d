"""One step of quantization-aware training on a small two-stage detector."""
import pytest
import torch

from mmdet_bpu.quantization import prepare, quantization_of, set_quant_state
from mmdet_bpu.quantization.fused.composites import FUSED

SHAPE = (64, 64)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def model(small_detector, calibrated):
    return calibrated(
        prepare(small_detector(), dict(input_shape=SHAPE, calibration=dict(observer='minmax'))),
        IMAGE)


def total(losses):
    return sum(value.sum() if torch.is_tensor(value) else sum(v.sum() for v in value)
               for name, value in losses.items() if 'loss' in name)


def test_gradients_reach_every_trainable_parameter(model, small_detector, losses_of):
    stock = small_detector()
    total(losses_of(stock, IMAGE)).backward()
    trained = {name for name, p in stock.named_parameters()
               if p.grad is not None and p.grad.abs().sum() > 0}
    loss = total(losses_of(model, IMAGE))
    assert torch.isfinite(loss)
    loss.backward()
    parameters = dict(model.named_parameters())
    for name in trained & set(parameters):
        gradient = parameters[name].grad
        assert gradient is not None and torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name
    assert all(parameters[name].grad is None or parameters[name].requires_grad
               for name in parameters)


def test_a_step_is_that_of_written_out_functions(model, losses_of, monkeypatch):
    def step():
        torch.manual_seed(0)
        model.zero_grad()
        loss = total(losses_of(model, IMAGE))
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()
                             if p.grad is not None and p.grad.abs().sum() > 0}

    at_once, gradients = step()
    for function in list(FUSED):
        monkeypatch.delitem(FUSED, function)
    written_out, expected = step()
    assert at_once == pytest.approx(written_out, rel=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), 0) > 0.999, name


def test_a_step_lowers_the_loss_and_leaves_the_activation_scales(model, losses_of):
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    scales = {key: q.scale.clone() for key, q in quantization_of(model).quantizers.items()}
    first = total(losses_of(model, IMAGE))
    loss = first
    for _ in range(4):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = total(losses_of(model, IMAGE))
    assert loss < first
    assert all(torch.equal(q.scale, scales[key])
               for key, q in quantization_of(model).quantizers.items())


def test_quantized_losses_are_near_the_float_ones(model, losses_of):
    with torch.no_grad():
        quantized = total(losses_of(model, IMAGE))
        set_quant_state(model, 'off')
        plain = total(losses_of(model, IMAGE))
    assert quantized != plain
    assert abs(quantized - plain) < 0.1 * plain


def test_under_bfloat16_autocast_the_loss_is_finite_and_gradients_flow(model, losses_of):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = total(losses_of(model, IMAGE))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.neck.convs[0].conv.weight.grad.abs().sum() > 0
    for quantizer in quantization_of(model).quantizers.values():
        assert quantizer.scale.dtype == torch.float32
