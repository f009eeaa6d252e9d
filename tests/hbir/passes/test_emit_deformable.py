"""Deformable convolution: bits of its samples, its integer form, and what does not fit it."""
import numpy as np
import pytest
import torch

from mmdet_bpu.analysis.op_bounds import contract_bound
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, constant_array, operations
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of, convert
from mmdet_bpu.hbir.passes.conversion import FAKE_QUANT
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.models.deform_conv2d import deform_conv2d
from mmdet_bpu.program.numerics import Operand

INT32_MAX = 2**31 - 1
SIZE, CHANNELS = (9, 8), 4


class Case:
    """An image, offsets and a mask as inputs of one deformable convolution.

    Args:
        masked (bool): With a mask.
        bits (int): Of the image.
        result (int): Bits of the rounded result; 0 leaves the accumulator.
        weight (np.ndarray, optional): (O, 3, 3, C); random otherwise.
        reach (float): Of offsets, in px.
        offset_scale (float): Of the int16 offsets.
    """

    def __init__(self, masked=True, bits=8, result=8, weight=None, bias=None, reach=1.5,
                 offset_scale=2.0**-8, offset_bits=16, mask_bits=8, relu=False, spread=1.0):
        rng = np.random.default_rng(0)
        weight = rng.normal(size=(6, 3, 3, CHANNELS)) if weight is None else weight
        channels, groups = weight.shape[3] * 2, 2
        shapes = {'x': (1, *SIZE, channels), 'offset': (1, *SIZE, 36), 'mask': (1, *SIZE, 18)}
        scales = {'x': 2.0**(1 - bits), 'offset': offset_scale, 'mask': 1 / 127}
        widths = {'x': bits, 'offset': offset_bits, 'mask': mask_bits}
        names = ['x', 'offset', 'mask'][:3 if masked else 2]
        b = OpBuilder([(name, tensor_type(shapes[name], 'f32')) for name in names])
        x, offset, *mask = (b.fake_quant(value, widths[name], scales[name], site=name)
                            for name, value in zip(names, b.inputs))
        mask = mask or [b.fake_quant(b.constant(np.ones(shapes['mask'], np.float32)), 8, 1 / 64)]
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / 127
        w = b.fake_quant(b.constant(weight.astype(np.float32)), 8, scale, axis=0)
        bias = rng.normal(size=len(weight)) if bias is None else bias
        attrs = dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groupNum=groups,
                     offsetGroupNum=2, useMask=masked)
        shape = tensor_type((1, *SIZE, len(weight)), 'f32')
        y = b.op('hbir.deform_conv2d', [x, w, offset, mask[0], b.constant(np.float32(bias))], attrs,
                 shape, site='neck/deform_conv2d.0')
        if relu:
            y = b.op('hbir.relu', [y], {}, shape)
        if result:
            y = b.fake_quant(y, result, spread * 2.0**(1 - result) * np.sqrt((weight**2).sum() / 3))
        self.module = b.finish([('y', y)])
        values = dict(x=rng.uniform(-1, 1, shapes['x']), mask=rng.uniform(0, 1, shapes['mask']),
                      offset=rng.uniform(-reach, reach, shapes['offset']))
        self.integers = {}
        for name in names:
            limit = 2**(widths[name] - 1)
            rounded = np.clip(np.rint(values[name] / scales[name]), -limit, limit - 1)
            self.integers[name] = torch.from_numpy(rounded.astype(f'int{widths[name]}'))
        self.scales = scales

    def operation(self):
        """The integer operation, and its weight and bias as int64."""
        op = next(op for op in operations(convert(self.module)[0])
                  if op.name == 'bpu.deform_conv2d')
        return op, *(constant_array(value).astype(np.int64) for value in op.operands[1:3])

    def bound(self):
        """What the contract costs its rounded result."""
        conversion = conversion_of(self.module)
        rounded = [op for op in conversion.products if op.name == FAKE_QUANT]
        return contract_bound(conversion, rounded[0].results[0])

    def distance(self):
        """LSB between integers and the float reference: (largest, share of elements)."""
        executable = Interpreter(program_from_module(convert(self.module)[0]))
        found = executable.run(self.integers)['y'].double()
        real = FloatReference(self.module).run(
            {name: value.float() * torch.tensor(self.scales[name], dtype=torch.float32)
             for name, value in self.integers.items()})['y'].double()
        distance = (found - (real / executable.outputs[0].scale).round()).abs()
        return distance.max().item(), (distance > 0).double().mean().item()


@pytest.mark.parametrize('result', [8, 16])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('relu', [False, True])
def test_integers_are_within_one_lsb_of_the_reference(masked, bits, result, relu):
    largest, share = Case(masked, bits, result, relu=relu).distance()
    assert largest <= 1 and share < (0.005 if result == 8 else 0.2)


def test_the_position_of_another_offset_scale_is_rounded_to_a_fraction():
    """No fixed scale, no promise: positions are off by up to half a 256th of a px and 2**-15."""
    case = Case(offset_scale=0.0031)
    op, *_ = case.operation()
    attrs = attrs_of(op)
    real = 0.0031 * 256
    assert attrs['offset_multiplier'][0] / 2**attrs['offset_shift'][0] == pytest.approx(
        real, rel=2**-15)
    assert 0 < case.distance()[0] <= 2
    bound = case.bound()
    # Half a 256th of a px, and 2**-15 of 128 px: of a sample, along two axes, at its steepest.
    assert bound.absolute > 1 and case.distance()[0] <= bound.absolute + 1


def test_the_template_scale_needs_no_rounding():
    op, *_ = Case().operation()
    assert (attrs_of(op)['offset_multiplier'], attrs_of(op)['offset_shift']) == ([1 << 14], [14])
    assert attrs_of(op)['fraction_bits'] == 8


def test_version_1_leaves_out_the_mask_that_hbir_demands():
    op, *_ = Case(masked=False).operation()
    assert len(op.operands) == 4


@pytest.mark.parametrize('masked', [False, True])
def test_the_text_of_both_forms_comes_back(masked):
    module = Case(masked).module
    for text in (print_text(module), print_text(convert(module)[0])):
        assert print_text(parse_text(text)) == text


def test_bias_counts_in_the_unit_of_the_accumulator():
    weight = np.ones((2, 3, 3, CHANNELS))
    for masked, factor in ((False, 1), (True, 128 / 127)):
        case = Case(masked, weight=weight, bias=np.array([0.7, -0.3]))
        op, _, bias = case.operation()
        unit = 2.0**-7 / 127 * factor * 2.0**-attrs_of(op)['sample_bits']
        np.testing.assert_allclose(bias, np.array([0.7, -0.3]) / unit, atol=0.51, rtol=1e-6)


@pytest.mark.parametrize('channels, bits, result, expected', [
    (16, 8, 8, 7), (16, 8, 16, 9), (16, 8, 0, 9), (16, 16, 8, 1), (1, 8, 16, 13), (128, 8, 8, 6),
    (128, 8, 16, 6)])
def test_samples_keep_the_most_bits_that_fit(channels, bits, result, expected):
    """All weights at 127: the bound of the accumulator is taps x channels x 127 x 2**(7 + e)."""
    weight = np.ones((2, 3, 3, channels))
    case = Case(bits=bits, result=result, weight=weight, bias=np.zeros(2))
    op, integers, bias = case.operation()
    found = attrs_of(op)['sample_bits']
    bound = int(np.abs(integers).reshape(2, -1).sum(1).max()) << bits - 1
    assert found == expected and (bound << found) <= INT32_MAX
    assert found == (7 if result == 8 else 16) or (bound << found + 1) > INT32_MAX * (1 - 2**-13)
    notes = [n for n in convert(case.module)[1] if n['rule'] == 'bound_accumulators']
    assert [n['sample_bits'] for n in notes] == ([found] if found < 7 else [])
    KERNELS['bpu.deform_conv2d'].plan([
        Operand(*known) for known in (
            (f'si{bits}', (1, *SIZE, 2 * channels), None),
            ('si8', integers.shape, torch.from_numpy(integers.astype(np.int8))),
            ('si32', bias.shape, torch.from_numpy(bias.astype(np.int32))),
            ('si16', (1, *SIZE, 36), None), ('si8', (1, *SIZE, 18), None))],
        {**attrs_of(op), 'out_dtypes': ['si8']})


def test_an_int16_result_of_many_terms_is_off_by_what_its_samples_must_lose():
    """2304 taps x channels, as in DyHead: int32 has no room for the bits that 1 LSB would take.

    The exact result is a sum of multiples of 2**-23 that float64 holds. From it the integers are
    half an LSB, half a unit of the accumulator per weight unit and per bias, and the multiplier's
    2**-15 away, all of which the contract has.
    """
    weight = np.random.default_rng(1).normal(size=(64, 3, 3, 256))
    case = Case(result=16, weight=weight, bias=np.zeros(64), spread=0.23)
    op, integers, _ = case.operation()
    bits = attrs_of(op)['sample_bits']
    sums = np.abs(integers).reshape(64, -1).sum(1)
    assert (sums << 7 + bits).max() <= INT32_MAX < (sums << 8 + bits).max()
    x, offset, mask = (case.integers[name].double().permute(0, 3, 1, 2)
                       for name in ('x', 'offset', 'mask'))
    exact = deform_conv2d(x, offset / 256, torch.from_numpy(integers).permute(0, 3, 1, 2).double(),
                          mask, stride=1, padding=1, dilation=1, groups=2, offset_groups=2)
    scale = np.abs(weight).reshape(64, -1).max(1).astype(np.float32) / 127
    executable = Interpreter(program_from_module(convert(case.module)[0]))
    unit = 2.0**-7 / 127 * torch.from_numpy(scale) / executable.outputs[0].scale
    real = exact.permute(0, 2, 3, 1) * unit
    found = executable.run(case.integers)['y']
    lost = torch.from_numpy(sums) / 2 * unit * 2.0**(7 - bits)
    error = (found - real).abs()
    assert (error <= 0.5 + lost + real.abs() * 2.0**-15 * 1.1).all()
    assert real.abs().max() < 2**15 and 1 < (found - real.round()).abs().max() <= 3
    bound = case.bound()
    assert float(bound.absolute) == pytest.approx(lost.max().item(), rel=1e-3)
    assert bound.relative <= 2.0**-15 and (error <= 0.5 + bound.at(real)).all()


def test_where_no_bits_fit_weight_scales_are_enlarged():
    weight = np.ones((2, 3, 3, 200))
    weight[1] = 0.01 * np.random.default_rng(0).normal(size=weight[1].shape)
    case = Case(bits=16, weight=weight, bias=np.zeros(2))
    op, integers, _ = case.operation()
    assert attrs_of(op)['sample_bits'] == 0
    bounds = np.abs(integers).reshape(2, -1).sum(1) << 15
    assert (bounds <= INT32_MAX).all() and bounds[0] > 0.9 * INT32_MAX
    texts = [n['text'] for n in convert(case.module)[1]]
    assert any('1 channels enlarged' in text for text in texts)


def test_an_accumulator_that_nothing_rounds_is_an_si32_output():
    executable = Interpreter(program_from_module(convert(Case(result=0).module)[0]))
    case = Case(result=0)
    found = executable.run(case.integers)['y'].double() * executable.outputs[0].scale
    real = FloatReference(case.module).run(
        {name: value.float() * case.scales[name] for name, value in case.integers.items()})['y']
    assert executable.outputs[0].dtype == 'si32'
    assert (found - real).abs().max() < 1e-4 * real.abs().max()


@pytest.mark.parametrize('change, message', [
    (dict(offset_bits=8), 'takes its offset as si16, found si8; change the qconfig rule of the'),
    (dict(mask_bits=16), 'takes its mask as si8, found si16')])
def test_other_types_are_refused_with_their_site(change, message):
    with pytest.raises(BpuError, match=f'neck/deform_conv2d.0: deform_conv2d {message}'):
        convert(Case(**change).module)


def test_an_addition_reads_the_accumulator_as_a_tensor_of_its_own(largest_lsb):
    """The integer op has no residual."""
    b = OpBuilder([('x', tensor_type((1, 4, 4, 2), 'f32'))])
    x = b.fake_quant(b.inputs[0], 8, 1 / 128)
    ones = b.constant(np.ones((2, 1, 1, 2), np.float32))
    w = b.fake_quant(ones, 8, np.full(2, 1 / 127), axis=0)
    offset = b.fake_quant(b.constant(np.full((1, 4, 4, 2), 0.5, np.float32)), 16, 2.0**-8)
    mask = b.fake_quant(b.constant(np.ones((1, 4, 4, 1), np.float32)), 8, 1 / 64)
    attrs = dict(stride=[1, 1], pad=[0] * 4, dilation=[1, 1], groupNum=1, offsetGroupNum=1,
                 useMask=False)
    shape = tensor_type((1, 4, 4, 2), 'f32')
    y = b.op('hbir.deform_conv2d', [x, w, offset, mask], attrs, shape, site='here')
    module = b.finish([('y', b.fake_quant(b.op('hbir.add', [y, x], {}, shape), 8, 1 / 64))])
    assert [op.name for op in operations(convert(module)[0]) if op.name != 'bpu.constant'] == [
        'bpu.deform_conv2d', 'bpu.add']
    assert largest_lsb(module) <= 1
