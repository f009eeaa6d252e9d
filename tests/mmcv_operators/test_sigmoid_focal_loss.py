"""Focal loss without mmcv's compiled operators: what mmdet asks of them on CUDA."""
import pytest
import torch

import mmdet_bpu.registration  # noqa: F401
from mmcv.ops import sigmoid_focal_loss  # isort: skip
from mmdet.models.losses.focal_loss import FocalLoss, py_sigmoid_focal_loss  # isort: skip

from mmdet_bpu.compat import has_compiled_ext

pytestmark = pytest.mark.skipif(has_compiled_ext(), reason='this mmcv has its compiled operators')
CLASSES = 4


def _inputs(scale: float, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, CLASSES, generator=generator).mul(scale).to(dtype)
    targets = torch.randint(0, CLASSES + 1, (50, ), generator=generator)  # the last is background
    return logits.requires_grad_(), targets


@pytest.mark.parametrize('scale', [1.0, 30.0], ids=['usual', 'certain'])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.6)])
def test_loss_and_gradient_are_those_of_mmdet_on_a_cpu(scale, gamma, alpha):
    logits, targets = _inputs(scale)
    expected_logits = logits.detach().clone().requires_grad_()
    one_hot = torch.nn.functional.one_hot(targets, CLASSES + 1)[:, :CLASSES]
    expected = py_sigmoid_focal_loss(expected_logits, one_hot, gamma=gamma, alpha=alpha,
                                     reduction='none')
    found = sigmoid_focal_loss(logits, targets, gamma, alpha, None, 'none')
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    seed = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(seed)
    expected.backward(seed)
    torch.testing.assert_close(logits.grad, expected_logits.grad, rtol=1e-4, atol=1e-6)


def test_weights_are_of_the_targets_class():
    logits, targets = _inputs(1.0)
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0])
    plain = sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, 'none')
    weighted = sigmoid_focal_loss(logits, targets, 2.0, 0.25, weights, 'none')
    of_row = torch.cat([weights, torch.ones(1)])[targets][:, None]
    torch.testing.assert_close(weighted, plain * of_row)
    gradient, = torch.autograd.grad(weighted.sum(), logits)
    expected, = torch.autograd.grad((plain * of_row).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_half_precision_is_computed_in_float32():
    logits, targets = _inputs(3.0, torch.float16)
    found = sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, 'none')
    expected = sigmoid_focal_loss(logits.detach().float(), targets, 2.0, 0.25, None, 'none')
    assert found.dtype == torch.float16
    assert torch.equal(found, expected.half())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_the_stock_loss_on_cuda_is_that_on_the_cpu():
    loss = FocalLoss()
    logits, targets = _inputs(2.0)
    expected = loss(logits, targets)
    expected.backward()
    on_device = logits.detach().cuda().requires_grad_()
    found = loss(on_device, targets.cuda())
    found.backward()
    torch.testing.assert_close(found.cpu(), expected)
    torch.testing.assert_close(on_device.grad.cpu(), logits.grad, rtol=1e-4, atol=1e-6)
