"""deform_conv2d of the fast set equals the reference's, and refuses the same."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS, kernel_set
from mmdet_bpu.program.numerics import Operand, quantize_multiplier


def case(seed=0, channels=16, groups=1, offset_groups=1, kernel=(3, 3), stride=(1, 1),
         pad=(1, 1, 1, 1), dilation=(1, 1), bits=8, sample_bits=7, scale=2.0**-8, masked=True,
         size=(5, 4), outputs=4, out_dtype='si8', relu=False, image_type=np.int8):
    """Operands with many numbers at the ends of their types, and attributes."""
    rng = np.random.default_rng(seed)
    results = [(extent + pad[axis] + pad[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1)
               // stride[axis] + 1 for axis, extent in enumerate(size)]
    maps = offset_groups * kernel[0] * kernel[1]

    def integers(shape, dtype):
        ends = np.iinfo(dtype)
        numbers = np.where(rng.random(shape) < 0.3, rng.choice([ends.min, ends.max, 0], shape),
                           rng.integers(ends.min, ends.max + 1, shape))
        return torch.from_numpy(numbers.astype(dtype))

    inputs = [integers((2, *size, channels), image_type),
              integers((outputs, *kernel, channels // groups), np.int8),
              torch.from_numpy(rng.integers(-2**20, 2**20, outputs).astype(np.int32)),
              integers((2, *results, 2 * maps), np.int16)]
    inputs[3][:, ::2] //= 64  # near the image
    if masked:
        inputs.append(integers((2, *results, maps), np.int8))
    multiplier, shift = quantize_multiplier(scale * 2**bits)
    ratio = {'si8': 1, 'si16': 256, 'si32': 2**24}[out_dtype] / (2.0**(7 + sample_bits) * 300)
    pairs = [quantize_multiplier(ratio * factor) for factor in rng.uniform(0.3, 3, outputs)]
    return inputs, dict(
        stride=list(stride), pad=list(pad), dilation=list(dilation), groups=groups,
        offset_groups=offset_groups, fraction_bits=bits, sample_bits=sample_bits,
        offset_multiplier=[multiplier], offset_shift=[shift], relu=relu,
        multiplier=[pair[0] for pair in pairs], shift=[pair[1] for pair in pairs],
        out_dtypes=[out_dtype], out_shapes=[(2, *results, outputs)])


def operands(inputs):
    return [Operand.of(tensor, constant=index in (1, 2)) for index, tensor in enumerate(inputs)]


def assert_equal(inputs, attrs):
    expected = KERNELS['bpu.deform_conv2d'](inputs, attrs)[0]
    run = kernel_set('fast').plan('bpu.deform_conv2d', operands(inputs), attrs)
    assert run is not None
    found = run(inputs)[0]
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_equals_the_reference(data):
    def pick(*values):
        return data.draw(st.sampled_from(values))

    bits = pick(8, 8, 4, 1)
    offset_groups = pick(1, 2)
    assert_equal(*case(
        data.draw(st.integers(0, 2**16)), offset_groups * pick(2, 16, 18, 40), pick(1, 2),
        offset_groups, pick((3, 3), (1, 1), (2, 3)), pick((1, 1), (2, 1), (1, 3)),
        pick((1, 1, 1, 1), (0, 2, 1, 0)), pick((1, 1), (1, 2)), bits,
        min(pick(0, 1, 7, 9), 2 * bits), pick(2.0**-8, 0.0123, 3.0, 1e9, 1e-7),
        pick(True, False), outputs=pick(2, 4),
        out_dtype=pick('si8', 'si16', 'si32'), relu=pick(True, False)))


def test_exact_samples_are_not_rounded():
    assert_equal(*case(bits=4, sample_bits=8, masked=False))


def test_images_of_si16_are_left_to_the_reference():
    inputs, attrs = case(image_type=np.int16, sample_bits=0)
    assert kernel_set('fast').plan('bpu.deform_conv2d', operands(inputs), attrs) is None


def test_what_the_reference_refuses_is_refused():
    inputs, attrs = case(channels=64, sample_bits=14)
    inputs[1].fill_(127)
    with pytest.raises(BpuError, match='take fewer sample_bits'):
        kernel_set('fast').plan('bpu.deform_conv2d', operands(inputs), attrs)
