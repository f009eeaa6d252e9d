"""Fake quantizers against numpy: ties, saturation, gradients, AMP."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import constant_scale, weight_scale
from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization.fake_quant import (FakeQuantizer, QuantState, fake_quantize,
                                               fake_quantize_constant, fake_quantize_weight)


RANGES = {'int8': (-128, 127), 'int16': (-32768, 32767)}


def on_grid(x: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """The definition, in float32 as on the device: rint is ties to even."""
    low, high = RANGES[dtype]
    q = np.clip(np.rint(x.astype(np.float32) / np.float32(scale)), low, high)
    return (q * np.float32(scale)).astype(np.float32)


@pytest.mark.parametrize('dtype', RANGES)
@given(x=hnp.arrays(np.float32, 50, elements=st.floats(-1e4, 1e4, width=32)),
       scale=st.floats(2.0**-10, 100, width=32))
def test_values_are_those_of_numpy(dtype, x, scale):
    result = fake_quantize(torch.from_numpy(x), torch.tensor([scale]), dtype).numpy()
    np.testing.assert_array_equal(result, on_grid(x, scale, dtype))


def test_ties_go_to_even():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]) * 0.25
    result = fake_quantize(x, torch.tensor([0.25]), 'int8') / 0.25
    assert result.tolist() == [-2, -2, 0, 0, 2, 2, 4]


def test_ties_are_those_of_a_division_where_the_reciprocal_would_move_them():
    scale = torch.tensor([0.1])
    x = (torch.arange(-60, 60) + 0.5) * scale
    np.testing.assert_array_equal(fake_quantize(x, scale, 'int8'), on_grid(x.numpy(), 0.1, 'int8'))


@pytest.mark.parametrize('dtype', RANGES)
def test_large_and_infinite_values_saturate_on_their_side_and_nan_stays(dtype):
    low, high = RANGES[dtype]
    x = torch.tensor([1e9, -1e9, 1e38, -1e38, float('inf'), float('-inf'), float('nan')])
    result = fake_quantize(x, torch.tensor([0.5]), dtype)
    assert result[:6].tolist() == [high * 0.5, low * 0.5] * 3
    assert result[6].isnan()


def test_input_is_left_as_it_is():
    x = torch.tensor([0.3, 7.7])
    fake_quantize(x, torch.tensor([1.0]), 'int8')
    assert x.tolist() == torch.tensor([0.3, 7.7]).tolist()


@pytest.mark.parametrize('dtype', RANGES)
def test_the_gradient_passes_inside_the_range_and_nowhere_else(dtype):
    low, high = RANGES[dtype]
    x = torch.tensor([low - 0.51, low - 0.49, 0.3, high + 0.49, high + 0.51, 1e9])
    x.requires_grad_()
    fake_quantize(x, torch.tensor([1.0]), dtype).backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 0, 0]


LAYOUTS = {
    'contiguous': lambda x: x, 'channels last': lambda x: x.to(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(1, 3), 'strided': lambda x: x[..., ::2]}


@pytest.mark.parametrize('rectified', [False, True], ids=['', 'relu'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', RANGES)
def test_every_layout_has_the_values_and_gradients_of_numpy(path, dtype, layout, rectified):
    x = torch.randn(2, 16, 33, 18, generator=torch.Generator().manual_seed(0))
    x[0, 0, :3, :4] = torch.tensor([[0., -0., 1e36, -1e36], [np.inf, -np.inf, 1e-40, -1e-40],
                                    [0.005, 0.015, -0.005, -0.015]])
    x = LAYOUTS[layout](x).requires_grad_()
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    low, high = RANGES[dtype]
    given = x.detach().numpy()
    source = np.maximum(given, 0) if rectified else given
    steps = np.rint(source / np.float32(0.01))
    passes = (steps >= low) & (steps <= high) & ((given > 0) | (not rectified))
    y = fake_quantize(x, torch.tensor([0.01]), dtype, rectified=rectified)
    found, = torch.autograd.grad(y, x, gradient)
    np.testing.assert_array_equal(y.detach(), on_grid(source, 0.01, dtype))
    np.testing.assert_array_equal(found, np.where(passes, gradient.numpy(), 0))
    with torch.no_grad():
        assert torch.equal(fake_quantize(x, torch.tensor([0.01]), dtype, rectified=rectified), y)


@pytest.mark.parametrize('count', [0, 1, 7, 4095, 4096, 4097, 200_001])
def test_no_element_of_a_block_is_left_out(path, count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = fake_quantize(x, torch.tensor([0.02]), 'int8')
    y.sum().backward()
    np.testing.assert_array_equal(y.detach(), on_grid(x.detach().numpy(), 0.02, 'int8'))
    inside = np.rint(x.detach().numpy() / np.float32(0.02))
    np.testing.assert_array_equal(x.grad, (inside >= -128) & (inside <= 127))


def test_what_is_owned_is_overwritten_and_trains_alike():
    if not compiled_loops.usable():
        pytest.skip('numba is not installed')
    leaf = torch.randn(5000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    given = leaf * 2
    expected = on_grid(given.detach().numpy(), 0.02, 'int8')
    y = fake_quantize(given, torch.tensor([0.02]), 'int8', owned=True)
    assert y.data_ptr() == given.data_ptr()
    np.testing.assert_array_equal(y.detach(), expected)
    y.sum().backward()
    inside = np.rint(leaf.detach().numpy() * np.float32(2) / np.float32(0.02))
    np.testing.assert_array_equal(leaf.grad, 2.0 * ((inside >= -128) & (inside <= 127)))


def test_gradients_can_be_differentiated_again(path):
    x = torch.tensor([0.3, 5.0, -0.2]).requires_grad_()
    first, = torch.autograd.grad((fake_quantize(x, torch.tensor([0.01]), 'int8')**2).sum(), x,
                                 create_graph=True)
    second, = torch.autograd.grad(first.sum(), x)
    assert second.tolist() == [2.0, 0.0, 2.0]


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_gradients_are_the_same_on_every_device(device):
    if not getattr(torch, device).is_available():
        pytest.skip('no CUDA device')
    x = torch.linspace(-3, 3, 1001, device=device, requires_grad=True)
    y = fake_quantize(x, torch.tensor([0.0113], device=device), 'int8')
    y.sum().backward()
    inside = (x.detach().cpu().numpy() / np.float32(0.0113)).round()
    np.testing.assert_array_equal(x.grad.cpu(), (inside >= -128) & (inside <= 127))
    np.testing.assert_array_equal(y.detach().cpu(), on_grid(x.detach().cpu().numpy(), 0.0113,
                                                            'int8'))


def test_under_bfloat16_autocast_it_computes_and_returns_float32():
    x = torch.randn(64, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = fake_quantize(x.bfloat16(), torch.tensor([0.001]), 'int16')
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(
        result.detach(), on_grid(x.detach().bfloat16().float().numpy(), 0.001, 'int16'))
    result.sum().backward()
    assert x.grad.tolist() == [1.0] * 64


def test_weights_have_one_scale_per_output_channel():
    weight = torch.tensor([[[[1.27]], [[-0.2]]], [[[-254.0]], [[100.6]]], [[[0.0]], [[0.0]]]])
    scale = weight_scale(weight)
    np.testing.assert_allclose(scale[:2], [0.01, 2.0], rtol=1e-6)
    assert scale[2] > 0, 'a channel of zeros still has a positive scale'
    result = fake_quantize_weight(weight)
    np.testing.assert_allclose(result.flatten()[:4], [1.27, -0.2, -254.0, 100.0], rtol=1e-6)
    assert result[2].flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize('dtype', RANGES)
def test_weights_are_those_of_numpy(path, dtype):
    weight = torch.randn(33, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    weight *= 10.0**torch.arange(-25, 8).view(-1, 1, 1, 1)
    weight[3] = 0
    high = np.float32(RANGES[dtype][1])
    rows = weight.flatten(1).numpy()
    scale = np.maximum(np.abs(rows).max(1, keepdims=True) / high, np.float32(2.0**-60))
    np.testing.assert_array_equal(fake_quantize_weight(weight, dtype).flatten(1),
                                  np.rint(rows / scale) * scale)


def test_every_weight_gets_its_gradient(path):
    weight = torch.randn(8, 3, 3, 3, requires_grad=True)
    fake_quantize_weight(weight).sum().backward()
    assert bool((weight.grad == 1).all())


def test_a_constant_is_scaled_by_its_largest_finite_magnitude():
    x = torch.tensor([0.5, -12.7, float('inf'), float('-inf')])
    assert constant_scale(x, 'int8').item() == pytest.approx(0.1)
    np.testing.assert_allclose(fake_quantize_constant(x, 'int8'), [0.5, -12.7, 12.7, -12.8],
                               rtol=1e-6)


def test_int32_is_an_accumulator_that_is_never_rounded():
    quantizer = FakeQuantizer('int32')
    quantizer.state = QuantState.of('both')
    x = torch.randn(5)
    assert torch.equal(quantizer(x), x)
    assert integer_range('int32') == (-2**31, 2**31 - 1)


def test_states_observe_quantize_both_and_off():
    x = torch.linspace(-1, 1, 100)
    quantizer = FakeQuantizer('int8', 'minmax')
    assert torch.equal(quantizer(x), x)
    quantizer.state = QuantState.of('observe')
    assert torch.equal(quantizer(x), x)
    quantizer.finish_calibration()
    assert quantizer.scale.item() == pytest.approx(1 / 127) and quantizer.calibrated
    quantizer.state = QuantState.of('quantize')
    quantizer(x * 100)
    quantizer.finish_calibration()
    assert quantizer.scale.item() == pytest.approx(1 / 127), 'nothing new was observed'
    quantizer.state = QuantState.of('both')
    np.testing.assert_array_equal(quantizer(x * 2), on_grid(x.numpy() * 2, 1 / 127, 'int8'))
    quantizer.finish_calibration()
    assert quantizer.scale.item() == pytest.approx(2 / 127)


def test_a_fixed_scale_is_not_observed():
    quantizer = FakeQuantizer('int8', 'minmax', scale=0.5)
    quantizer.state = QuantState.of('both')
    assert quantizer(torch.tensor([0.8, 1000.0])).tolist() == [1.0, 63.5]
    quantizer.finish_calibration()
    assert quantizer.scale.item() == 0.5 and quantizer.calibrated


def test_an_unknown_state_is_refused():
    with pytest.raises(BpuError, match="'quantise': expected one of off, observe, quantize, both"):
        QuantState.of('quantise')
