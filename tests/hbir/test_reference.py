"""The float reference: the lowered module computes what the detector computes."""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder, operations
from mmdet_bpu.hbir.reference import FUNCTIONS, FloatReference, evaluate, evaluate_value
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.lowering import hbir as lowering
from mmdet_bpu.models.deform_conv2d import deform_conv2d
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization import quantization_of, quantized_graphs

VARIANTS = ['', 'refine', 'refine-twostage']
F32 = tensor_type((2, 3), 'f32')


def named_outputs(outputs):
    return dict(zip(('cls_scores', 'bbox_preds'), outputs))


def channels_last(image):
    return image.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize('variant', VARIANTS)
def test_without_fake_quantizers_it_is_the_stock_float_model(small_detector, variant):
    small = small_detector(variant)
    found = FloatReference(small.hbir, quantize=False).run({'image': channels_last(small.image)})
    for name, expected in named_outputs(small.float_outputs).items():
        torch.testing.assert_close(found[name], expected, atol=1e-4, rtol=0)


class Recorded:
    """Every output of every fake quantizer of one QAT forward, in order."""

    def __init__(self, small):
        self.calls = []
        hooks = [module.register_forward_hook(self._hook(key.replace('|', '.')))
                 for key, module in quantization_of(small.model).quantizers.items()]
        self.outputs = small.outputs()
        for hook in hooks:
            hook.remove()

    def _hook(self, name):
        # A copy: the head adds the reference points in place.
        return lambda module, inputs, output: self.calls.append((name, output.clone()))

    def next_of(self, name, shape):
        """The first call not used yet; calls on constants that join a group are passed over.

        A reduction is lowered with its dimensions kept as 1.
        """
        kept = [size for size in shape if size != 1]
        for index, (called, output) in enumerate(self.calls):
            if called == name and [size for size in output.shape if size != 1] == kept:
                del self.calls[index]
                return output.reshape(shape)
        raise AssertionError(f'no call of {name} with shape {shape} is left')


@pytest.mark.parametrize('variant', VARIANTS)
def test_each_rounding_gives_what_qat_gives_from_the_same_values(small_detector, variant):
    """Rounding flips of float summation order spread, so each step starts from QAT's values."""
    small = small_detector(variant)
    recorded = Recorded(small)
    quant = quantization_of(small.model)
    quantized, = quantized_graphs(small.model)
    lowered = lowering.Lowering(quantized.graph, quantized.scales)
    module = lowered.run()
    known = {lowered.b.inputs[0]: channels_last(small.image)}
    compared = 0
    for value in quantized.placement.group:
        stored, name = lowered.values[value], quantized.name(value)
        dtype = quantized.configs[value].dtype
        expected = recorded.next_of(name, stored.shape).permute(stored.order)
        found = evaluate_value(stored.ssa, known)
        if dtype == 'int32':
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
        else:
            steps = ((found - expected) / quant.quantizer(name).scale).abs().round()
            assert steps.max() <= 1, (name, steps.max())
            assert (steps > 0).float().mean() < 0.01, name
        known[stored.ssa] = expected.contiguous()
        compared += 1
    assert compared > 100
    for name, expected in named_outputs(recorded.outputs).items():
        found = evaluate_value(lowered.in_order(output_value(quantized, name), (0, 1, 2)), known)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert sum(op.name == 'qnt.const_fake_quant' for op in operations(module)) > compared


def output_value(quantized, public):
    return quantized.graph.outputs[quantized.graph.output_names.index(public)]


def test_every_op_that_the_lowering_emits_has_a_reference():
    folder = Path(lowering.__file__).parent
    text = ''.join(path.read_text() for path in folder.glob('*.py'))
    emitted = {f'hbir.{name}' for name in re.findall(r"'hbir\.(\w+)'", text)}
    emitted |= {f'hbir.{row.hbir}' for row in KINDS.values() if row.hbir}
    assert emitted and emitted <= set(FUNCTIONS)


def one_op(name, arrays, attrs, shape, dtype='f32'):
    """The op of that name on constants, evaluated."""
    builder = OpBuilder([('x', F32)])
    operands = [builder.constant(array) for array in arrays]
    value = builder.op(name, operands, attrs, tensor_type(shape, dtype), site='here')
    return evaluate_value(value, {})


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_conv2d_is_channels_last_with_one_pad_per_side():
    x, w, b = random(1, 5, 6, 4), random(6, 3, 2, 2), random(6)
    attrs = dict(stride=[2, 1], pad=[1, 0, 2, 3], dilation=[1, 2], groupNum=2)
    found = one_op('hbir.conv2d', [x, w, b], attrs, (1, 3, 7, 6))
    padded = np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)))
    expected = np.zeros((1, 3, 7, 6), np.float64)
    for row in range(3):
        for column in range(7):
            for out in range(6):
                group = out // 3
                window = padded[0, 2 * row:2 * row + 3, column:column + 3:2,
                                2 * group:2 * group + 2]
                expected[0, row, column, out] = (window * w[out]).sum() + b[out]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_max_pool_ignores_its_padding():
    found = one_op('hbir.max_pool', [-np.ones((1, 3, 3, 1), np.float32)],
                   dict(kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1],
                        ceilMode=False), (1, 2, 2, 1))
    assert (found == -1).all()


def test_max_pool_takes_other_padding_behind_than_in_front():
    x = -np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    found = one_op('hbir.max_pool', [x],
                   dict(kernel=[2, 2], stride=[1, 1], pad=[0, 0, 1, 1], dilation=[1, 1],
                        ceilMode=False), (1, 3, 3, 1))
    np.testing.assert_array_equal(found, x)  # the first element of each window is the largest


@pytest.mark.parametrize('mode, padding', [('constant', 'zeros'), ('border', 'border')])
def test_grid_sample_is_channels_last(mode, padding):
    x, grid = random(1, 4, 5, 3), random(1, 2, 6, 2)
    attrs = dict(mode='bilinear', expansionMode=mode, alignCorner=False, padValue=0.0)
    found = one_op('hbir.grid_sample', [x, grid], attrs, (1, 2, 6, 3))
    expected = F.grid_sample(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(grid),
                             padding_mode=padding, align_corners=False)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('groups, offset_groups', [(1, 1), (2, 1), (1, 4), (4, 2)])
def test_deform_conv2d_is_channels_last(masked, groups, offset_groups):
    x, weight, bias = random(2, 5, 6, 8), random(4, 3, 2, 8 // groups), random(4)
    offset = random(2, 3, 2, offset_groups * 12) * 3
    mask = random(2, 3, 2, offset_groups * 6)
    attrs = dict(stride=[2, 2], pad=[1, 0, 1, 0], dilation=[1, 2], groupNum=groups,
                 offsetGroupNum=offset_groups, useMask=masked)
    found = one_op('hbir.deform_conv2d', [x, weight, offset, mask, bias], attrs, (2, 3, 2, 4))
    nchw = [torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, offset, weight, mask)]
    expected = deform_conv2d(nchw[0], nchw[1], nchw[2], nchw[3] if masked else None,
                             torch.from_numpy(bias), stride=2, padding=(1, 0), dilation=(1, 2),
                             groups=groups, offset_groups=offset_groups)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


def test_topk_takes_the_lower_index_of_equal_values():
    builder = OpBuilder([('x', F32)])
    x = builder.constant(np.array([[1, 3, 3, 2, 3]], np.float32))
    values, indices = builder.op('hbir.topk', [x], dict(k=3, dim=1, largest=True, sorted=True),
                                 [tensor_type((1, 3), 'f32'), tensor_type((1, 3), 'si32')])
    assert evaluate_value(values, {}).tolist() == [[3, 3, 3]]
    assert evaluate_value(indices, {}).tolist() == [[1, 2, 4]]


@pytest.mark.parametrize('name, attrs, expected', [
    ('hbir.slice', dict(begin=[0, 1], end=[2, 3], step=[1, 1]), lambda x: x[:, 1:3]),
    ('hbir.tile', dict(multiplies=[2, 1]), lambda x: np.tile(x, (2, 1))),
    ('hbir.transpose', dict(dims=[1, 0]), np.transpose),
    ('hbir.reshape', dict(shape=[3, 2]), lambda x: x.reshape(3, 2)),
    ('hbir.clip', dict(min=-0.5, max=0.5), lambda x: x.clip(-0.5, 0.5)),
    ('hbir.reduce_mean', dict(dims=[1], keepDim=True), lambda x: x.mean(1, keepdims=True)),
    ('hbir.reduce_max', dict(dims=[0], keepDim=True), lambda x: x.max(0, keepdims=True)),
    ('hbir.swish', {}, lambda x: x / (1 + np.exp(-x))),
])
def test_ops_follow_numpy(name, attrs, expected):
    x = random(2, 3)
    np.testing.assert_allclose(one_op(name, [x], attrs, expected(x).shape), expected(x), rtol=1e-5)


def test_a_fake_quantizer_rounds_quotients_half_to_even_and_saturates():
    builder = OpBuilder([('x', tensor_type((6, ), 'f32'))])
    value = builder.fake_quant(builder.inputs[0], 8, 0.5)
    module = builder.finish([('y', value)])
    x = torch.tensor([0.25, 0.75, -0.25, -0.75, 100, -100])
    assert FloatReference(module).run({'x': x})['y'].tolist() == [0, 1, 0, -1, 63.5, -64]
    assert torch.equal(FloatReference(module, quantize=False).run({'x': x})['y'], x)


def test_a_fake_quantizer_may_have_a_scale_per_channel():
    builder = OpBuilder([('x', F32)])
    value = builder.fake_quant(builder.inputs[0], 8, np.array([1, 0.5]), axis=0)
    found = FloatReference(builder.finish([('y', value)])).run({'x': torch.full((2, 3), 1.3)})
    assert found['y'].tolist() == [[1] * 3, [1.5] * 3]


@pytest.mark.parametrize('inputs, reason', [
    ({}, r"expected the inputs \['x'\], found \[\]"),
    ({'x': torch.zeros(3, 2)}, r"input 'x': expected shape \(2, 3\), found \(3, 2\)"),
])
def test_wrong_inputs_are_refused(inputs, reason):
    builder = OpBuilder([('x', F32)])
    module = builder.finish([('y', builder.inputs[0])])
    with pytest.raises(BpuError, match=reason):
        FloatReference(module).run(inputs)


def test_an_op_without_a_reference_is_named_with_its_site():
    builder = OpBuilder([('x', F32)])
    value = builder.op('hbir.ceil', builder.inputs, {}, F32, site='head/ceil.0')
    with pytest.raises(BpuError, match='head/ceil.0: no float reference for hbir.ceil'):
        evaluate(value.owner, [torch.zeros(2, 3)])
