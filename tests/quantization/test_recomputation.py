"""Activation checkpointing: a forward that runs again in the backward pass is the same forward."""
import functools

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch.utils.checkpoint import checkpoint

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import prepare, quantization_of, set_quant_state

SHAPE = (64, 64)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def prepared(small_detector, calibrated):
    """Function () -> the same small detector, calibrated."""
    settings = dict(input_shape=SHAPE, calibration=dict(observer='minmax'))
    return lambda: calibrated(prepare(small_detector(), settings), IMAGE)


def gradients(model, losses_of) -> dict:
    losses = losses_of(model, IMAGE)
    total = sum(value.sum() if torch.is_tensor(value) else sum(v.sum() for v in value)
                for name, value in losses.items() if 'loss' in name)
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def with_cp(model) -> None:
    for block in model.backbone.modules():
        if hasattr(block, 'with_cp'):
            block.with_cp = True


def by_mmengine(model) -> None:
    turn_on_activation_checkpointing(model, ['backbone.layer2', 'backbone.layer3'])


def not_reentrant(model) -> None:
    for name in ('layer2', 'layer3'):
        layer = getattr(model.backbone, name)
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def nested(model) -> None:
    with_cp(model)
    not_reentrant(model)


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.parametrize('turn_on', [with_cp, by_mmengine, not_reentrant, nested])
def test_gradients_are_those_without_it(prepared, losses_of, turn_on):
    plain, model = prepared(), prepared()
    expected = gradients(plain, losses_of)
    turn_on(model)
    calls = []
    block = model.backbone.layer3[0].conv1
    hook = block.register_forward_hook(lambda *given: calls.append(torch.is_grad_enabled()))
    found = gradients(model, losses_of)
    hook.remove()
    assert len(calls) > 1, 'nothing ran again'
    assert found.keys() == expected.keys()
    # Where two branches meet, torch adds their gradients in another order, in float too.
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
def test_observers_look_once(prepared, losses_of):
    model = prepared()
    by_mmengine(model)
    set_quant_state(model, 'both')
    seen = {}
    for key, quantizer in quantization_of(model).quantizers.items():
        quantizer.register_forward_hook(
            lambda module, given, output, key=key: seen.update({key: seen.get(key, 0) + 1}))
    losses_of(model, IMAGE)
    forward = dict(seen)
    gradients(model, losses_of)
    assert seen == {key: 2 * count for key, count in forward.items()}


def test_a_module_handed_over_is_refused(prepared, losses_of):
    model = prepared()
    layer = model.backbone.layer3
    body = layer.forward
    inner = torch.nn.Identity()
    inner.forward = body
    layer.forward = lambda x: checkpoint(inner, x, use_reentrant=False)
    with pytest.raises(BpuError, match='backbone.layer3 hands a module to activation checkpointing'):
        losses_of(model, IMAGE)


def test_torch_is_as_it_was_after_a_forward(prepared, losses_of):
    import torch.utils.checkpoint as checkpointing
    before = checkpointing.CheckpointFunction, \
        checkpointing._checkpoint_without_reentrant_generator
    model = prepared()
    losses_of(model, IMAGE)
    assert before == (checkpointing.CheckpointFunction,
                      checkpointing._checkpoint_without_reentrant_generator)
