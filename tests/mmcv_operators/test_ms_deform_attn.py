"""Deformable attention without mmcv's compiled operators: what it does on CUDA alone."""
import pytest
import torch

import mmdet_bpu.registration  # noqa: F401
from mmcv.ops.multi_scale_deform_attn import (  # isort: skip
    MultiScaleDeformableAttention, MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch)

from mmdet_bpu.compat import has_compiled_ext

SHAPES = torch.tensor([[6, 8], [3, 4]])
STARTS = torch.tensor([0, 48])
pytestmark = pytest.mark.skipif(has_compiled_ext(), reason='this mmcv has its compiled operators')


def _inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 60, 3, 5, generator=generator, dtype=dtype)
    locations = torch.rand(2, 7, 3, 2, 4, 2, generator=generator, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, 7, 3, 2, 4, generator=generator, dtype=dtype)
    return [each.requires_grad_() for each in (value, locations, weights)]


def test_the_function_computes_and_differentiates_as_the_pytorch_form():
    inputs, expected_inputs = _inputs(), _inputs()
    found = MultiScaleDeformableAttnFunction.apply(
        inputs[0], SHAPES, STARTS, inputs[1], inputs[2], 64)
    expected = multi_scale_deformable_attn_pytorch(
        expected_inputs[0], SHAPES, expected_inputs[1], expected_inputs[2])
    assert torch.equal(found, expected)
    gradient = torch.randn(expected.shape, dtype=expected.dtype)
    found.backward(gradient)
    expected.backward(gradient)
    for each, other in zip(inputs, expected_inputs):
        assert each.grad.abs().max() > 0
        assert torch.equal(each.grad, other.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('half', [False, True])
def test_the_stock_module_runs_on_cuda_as_on_the_cpu(half):
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=2,
                                           batch_first=True).eval()
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.05)
    query, value = torch.randn(2, 7, 32), torch.randn(2, 60, 32)
    points = torch.rand(2, 7, 2, 2)

    def run(device, half=False):
        module.to(device)
        tensors = [each.to(device) for each in (query, value, points, SHAPES, STARTS)]
        with torch.autocast(device, dtype=torch.float16, enabled=half):
            output = module(tensors[0], value=tensors[1], reference_points=tensors[2],
                            spatial_shapes=tensors[3], level_start_index=tensors[4])
        output.float().square().sum().backward()
        gradient = module.value_proj.weight.grad.cpu()
        module.zero_grad()
        return output.float().cpu(), gradient

    expected = run('cpu')
    tolerance = dict(atol=0.05, rtol=0.05) if half else dict(atol=1e-4, rtol=1e-4)
    for found, wanted in zip(run('cuda', half), expected):
        torch.testing.assert_close(found, wanted, **tolerance)
