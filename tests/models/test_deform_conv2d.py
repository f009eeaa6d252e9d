"""The function against its formula, ``F.conv2d``, finite differences and mmcv's rules."""
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mmdet_bpu.errors import BpuError
from mmdet_bpu.models.deform_conv2d import Window, deform_conv2d

PLAIN = dict(stride=1, padding=1, dilation=1, groups=1, offset_groups=1)
# (kernel, geometry); images have 4 channels.
GEOMETRIES = {
    'plain': ((3, 3), PLAIN),
    'without padding': ((3, 3), dict(PLAIN, padding=0)),
    'stride': ((3, 3), dict(PLAIN, stride=2)),
    'dilation': ((3, 3), dict(PLAIN, dilation=2, padding=2)),
    'axes that differ': ((2, 3), dict(PLAIN, stride=(1, 2), padding=(2, 0), dilation=(2, 1))),
    'groups': ((3, 3), dict(PLAIN, groups=2)),
    'offset groups': ((3, 3), dict(PLAIN, offset_groups=2)),
    'more groups than offset groups': ((1, 2), dict(PLAIN, padding=0, groups=4, offset_groups=2)),
    'more offset groups than groups': ((2, 1), dict(PLAIN, padding=0, groups=2, offset_groups=4)),
    'depthwise, one tap': ((1, 1), dict(PLAIN, padding=0, groups=4, offset_groups=4)),
}
geometries = pytest.mark.parametrize('kernel, geometry', GEOMETRIES.values(), ids=GEOMETRIES)


def operands(kernel, geometry, spread=2.0, size=(5, 6), batch=2, dtype=torch.float64):
    """(input, offset, weight, mask, bias); at a spread of 2 px many samples lie outside."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    weight = normal(4, 4 // geometry['groups'], *kernel)
    image = normal(batch, 4, *size)
    out = F.conv2d(image, weight, None, geometry['stride'], geometry['padding'],
                   geometry['dilation'], geometry['groups']).shape[2:]
    taps = geometry['offset_groups'] * kernel[0] * kernel[1]
    mask = torch.rand(batch, taps, *out, generator=generator, dtype=dtype)
    return image, normal(batch, 2 * taps, *out) * spread, weight, mask, normal(4)


def pairs(geometry):
    return {k: v if k.endswith('groups') else tuple(np.broadcast_to(v, 2))
            for k, v in geometry.items()}


@geometries
@pytest.mark.parametrize('with_mask', [False, True], ids=['v1', 'v2'])
@pytest.mark.parametrize('with_bias', [False, True], ids=['', 'bias'])
def test_values_are_those_of_the_formula(direct_deform_conv2d, kernel, geometry, with_mask,
                                         with_bias):
    image, offset, weight, mask, bias = operands(kernel, geometry)
    mask, bias = mask if with_mask else None, bias if with_bias else None
    expected = direct_deform_conv2d(image, offset, weight, mask, bias, **pairs(geometry))
    found = deform_conv2d(image, offset, weight, mask, bias, **geometry)
    assert found.is_contiguous()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@geometries
def test_without_offsets_it_is_a_convolution(kernel, geometry):
    image, offset, weight, _, bias = operands(kernel, geometry, dtype=torch.float32, size=(9, 11))
    plain = {k: v for k, v in geometry.items() if k != 'offset_groups'}
    torch.testing.assert_close(
        deform_conv2d(image, torch.zeros_like(offset), weight, None, bias, **geometry),
        F.conv2d(image, weight, bias, **plain))


@geometries
@pytest.mark.parametrize('v2', [False, True], ids=['v1', 'v2'])
def test_gradients_are_those_of_finite_differences(kernel, geometry, v2):
    tensors = [t.requires_grad_() for t in operands(kernel, geometry)]
    assert torch.autograd.gradcheck(lambda *t: deform_conv2d(*t, **geometry),
                                    tensors if v2 else tensors[:3], fast_mode=True)


def test_only_what_asks_for_a_gradient_gets_one():
    for wanted in itertools.product((False, True), repeat=5):
        if not any(wanted):
            continue
        tensors = operands((3, 3), PLAIN)
        for tensor, want in zip(tensors, wanted):
            tensor.requires_grad_(want)
        deform_conv2d(*tensors, **PLAIN).sum().backward()
        assert [t.grad is not None for t in tensors] == list(wanted)


def one_sample(y, x, size=(3, 4)):
    """(sample, its derivatives along y and x) of the image 1, 2, 3, ... at a position."""
    image = torch.arange(1.0, size[0] * size[1] + 1).view(1, 1, *size)
    offset = torch.zeros(1, 2, *size)
    offset[0, :, 0, 0] = torch.tensor([y, x])
    offset.requires_grad_()
    result = deform_conv2d(image, offset, torch.ones(1, 1, 1, 1), **dict(PLAIN, padding=0))
    result[0, 0, 0, 0].backward()
    return result[0, 0, 0, 0].item(), *offset.grad[0, :, 0, 0].tolist()


@pytest.mark.parametrize('position', [
    (-1, 1), (3, 1), (1, -1), (1, 4), (-1, -1), (-1.5, 1), (7, 1), (1, 1e30), (-1e30, 1),
    (float('inf'), 1), (1, float('-inf')), (float('nan'), 1)
], ids=str)
def test_at_and_beyond_the_border_samples_and_derivatives_are_zero(position):
    assert one_sample(*position) == (0, 0, 0)


def test_just_inside_the_border_a_sample_fades_out():
    assert one_sample(-0.75, 1) == (0.25 * 2, 2, 0.25)  # next to the pixels 2 and 3
    assert one_sample(1, 3.5) == (0.5 * 8, 0.5 * 4, -8)  # pixels 8 and, below it, 12


def test_on_a_pixel_the_derivative_is_that_towards_the_next_one():
    assert one_sample(1, 1) == (6, 4, 1)
    assert one_sample(2, 3) == (12, -12, -12)  # outside there are zeros


def test_the_offsets_of_a_new_layer_get_no_gradient_from_the_padding():
    """Where mmcv starts: all offsets are 0, and the first tap of the first row is at -1."""
    image, offset, weight, *_ = operands((3, 3), PLAIN)
    offset = torch.zeros_like(offset).requires_grad_()
    deform_conv2d(image, offset, weight, **PLAIN).sum().backward()
    gradient = offset.grad.unflatten(1, (3, 3, 2))
    assert not gradient[:, 0, :, :, 0].any() and not gradient[:, :, 0, :, :, 0].any()
    assert gradient[:, 1, 1].all()


class Recorder(TorchFunctionMode):
    """Notes every call that it sees."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, args, kwargs))
        return func(*args, **kwargs or {})


def test_a_mode_sees_one_call_and_nothing_inside():
    tensors = operands((3, 3), PLAIN)
    with Recorder() as outer, Recorder() as inner:
        seen = deform_conv2d(*tensors[:3], mask=tensors[3], **PLAIN)
    assert torch.equal(seen, deform_conv2d(*tensors[:4], **PLAIN))
    for recorder in (outer, inner):
        (func, args, kwargs), = recorder.calls
        assert func is deform_conv2d and func.__name__ == 'deform_conv2d'
        assert all(a is b for a, b in zip(args, tensors[:3], strict=True))
        assert kwargs == dict(PLAIN, mask=tensors[3])


def test_a_tensor_subclass_sees_one_call():

    class Marked(torch.Tensor):
        calls = []

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls.append(func)
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs or {})

    image, offset, weight, *_ = operands((3, 3), PLAIN)
    deform_conv2d(image, offset.as_subclass(Marked), weight, **PLAIN)
    assert Marked.calls == [deform_conv2d]


def test_only_the_operands_are_kept_for_backward():
    kept = []
    tensors = [t.requires_grad_() for t in operands((3, 3), PLAIN)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        deform_conv2d(*tensors, **PLAIN)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in tensors]


def test_an_operand_that_changes_before_backward_is_noticed():
    image, offset, weight, *_ = operands((3, 3), PLAIN)
    output = deform_conv2d(image, offset, weight.requires_grad_(), **PLAIN)
    image.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        output.sum().backward()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_positions_are_exact_where_the_offsets_dtype_is_too_short(dtype):
    """Column 300.5 is no bfloat16, and column 2048.5 no float16."""
    width = 2100
    image = (torch.arange(width) % 2).view(1, 1, 1, width)
    offset = torch.full((1, 2, 1, width), 0.5, dtype=dtype)
    offset[:, 0] = 0
    found = deform_conv2d(image.float(), offset, torch.ones(1, 1, 1, 1), **dict(PLAIN, padding=0))
    assert found.dtype == dtype
    assert (found[..., :-1] == 0.5).all()


def test_under_autocast_the_offset_decides_the_dtype():
    tensors = [t.requires_grad_() for t in operands((3, 3), PLAIN, dtype=torch.float32)]
    plain = deform_conv2d(*tensors, **PLAIN)
    gradients = torch.autograd.grad(plain.sum(), tensors)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = deform_conv2d(*tensors, **PLAIN)
        cast_gradients = torch.autograd.grad(cast.sum(), tensors)
    assert torch.equal(cast, plain)
    assert all(torch.equal(a, b) for a, b in zip(cast_gradients, gradients, strict=True))


@pytest.mark.parametrize('change, message', [
    (dict(input=(1, 5, 5, 6)), r'weight of shape \(4, 4, 3, 3\) with 1 groups and 1 offset groups '
     r'does not fit an input of shape \(1, 5, 5, 6\)'),
    (dict(input=(4, 5, 6)), 'does not fit an input'),
    (dict(offset_groups=3), '3 offset groups does not fit'),
    (dict(groups=3, weight=(4, 1, 3, 3), input=(1, 3, 5, 6)), '3 groups .* does not fit'),
    (dict(padding=0, input=(1, 4, 2, 6)), r'too small for a window of \(3, 3\)'),
    (dict(offset=(1, 18, 5, 5)),
     r'expected offset of shape \(1, 18, 5, 6\), found \(1, 18, 5, 5\)'),
    (dict(offset=(1, 9, 5, 6)), 'expected offset of shape'),
    (dict(mask=(1, 18, 5, 6)), r'expected mask of shape \(1, 9, 5, 6\)'),
    (dict(mask=(2, 9, 5, 6)), 'expected mask of shape'),
])
def test_shapes_that_do_not_fit_are_refused(change, message):
    shapes = dict(input=(1, 4, 5, 6), offset=(1, 18, 5, 6), weight=(4, 4, 3, 3),
                  mask=(1, 9, 5, 6))
    shapes.update({k: v for k, v in change.items() if k in shapes})
    geometry = dict(PLAIN, **{k: v for k, v in change.items() if k not in shapes})
    with pytest.raises(BpuError, match=message):
        deform_conv2d(**{k: torch.zeros(v) for k, v in shapes.items()}, **geometry)


@geometries
@pytest.mark.parametrize('size', [(5, 6), (8, 7)])
def test_the_output_size_is_that_of_a_convolution(kernel, geometry, size):
    plain = {k: v for k, v in geometry.items() if 'groups' not in k}
    expected = F.conv2d(torch.zeros(1, 1, *size), torch.zeros(1, 1, *kernel), **plain).shape[2:]
    assert Window(kernel, **pairs(geometry)).output_size(size) == tuple(expected)


@pytest.mark.parametrize('with_bias', [True, False])
def test_the_result_may_be_changed_in_place(with_bias):
    """ReLU behind it does, in training too, which autograd refuses for views."""
    x = torch.randn(1, 3, 5, 5, requires_grad=True)
    bias = torch.zeros(4) if with_bias else None
    result = deform_conv2d(x, torch.zeros(1, 18, 5, 5), torch.randn(4, 3, 3, 3), bias=bias,
                           stride=1, padding=1, dilation=1, groups=1, offset_groups=1)
    torch.relu_(result).sum().backward()
    assert x.grad.abs().sum() > 0
