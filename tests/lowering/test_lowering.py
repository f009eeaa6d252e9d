"""The deployed graph as HBIR: values, stored orders, fake quantizers, refusals."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, constant_array, operations, site_of
from mmdet_bpu.lowering.hbir import Scales, lower_graph
from mmdet_bpu.hbir.qnt_dialect import fake_quant_scale
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.graph.opgraph import Op, OpGraph, ValueInfo

IMAGE = (1, 4, 6, 5)  # N, C, H, W


class Graph:
    """An operation graph on one image, run by torch while it is built."""

    def __init__(self, shape=IMAGE):
        self.graph, self.scales = OpGraph(), Scales({})
        self.tensors = {}
        self.graph.inputs = [self._value('image', torch.randn(
            shape, generator=torch.Generator().manual_seed(0)))]

    def _value(self, name, tensor, constant=False):
        self.tensors[name] = tensor
        self.graph.values[name] = ValueInfo(tuple(tensor.shape), tensor.dtype,
                                            tensor if constant else None)
        return name

    def constant(self, tensor):
        return self._value(f'c{len(self.tensors)}', tensor, constant=True)

    def op(self, kind, inputs, function, **params):
        """Append an op whose result is ``function`` of its input tensors."""
        result = function(*[self.tensors[name] for name in inputs])
        name = self._value(f'v{len(self.tensors)}', result)
        self.graph.ops.append(Op(kind, list(inputs), params, name, f'model/{kind}.0'))
        if kind in ('conv2d', 'linear'):
            weight = self.tensors[inputs[1]]
            self.scales.weights[name] = ('int8', weight.flatten(1).abs().amax(1).numpy() / 127)
        for index, value in enumerate(inputs):
            info = self.graph.values[value]
            if info.is_constant and info.dtype.is_floating_point:
                self.scales.constants[name, index] = ('int16', 0.001)
        return name

    def permute(self, x, *dims):
        return self.op('permute', [x], lambda t: t.permute(dims), dims=list(dims))

    def reshape(self, x, *shape):
        return self.op('reshape', [x], lambda t: t.reshape(shape), shape=list(shape))

    def conv(self, x='image', out=8):
        weight = self.constant(torch.randn(out, self.graph.values[x].shape[1], 3, 3))
        return self.op('conv2d', [x, weight], lambda t, w: F.conv2d(t, w, padding=1),
                       stride=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1], groups=1)

    def linear(self, x, out=3):
        weight = self.constant(torch.randn(out, self.graph.values[x].shape[-1]))
        bias = self.constant(torch.randn(out))
        name = self.op('linear', [x, weight, bias], F.linear)
        for key in [key for key in self.scales.constants if key[0] == name]:
            del self.scales.constants[key]
        return name

    def lower(self, *outputs):
        self.graph.outputs = list(outputs)
        self.graph.output_names = [f'out{i}' for i in range(len(outputs))]
        return lower_graph(self.graph, self.scales)

    def check(self, *outputs, atol=1e-5):
        """Lower, compare with torch, and return the kinds of operations."""
        module = self.lower(*outputs)
        image = self.tensors['image']
        image = image.permute(0, 2, 3, 1) if image.dim() == 4 else image
        found = FloatReference(module, quantize=False).run({'image': image.contiguous()})
        for name, value in zip(found, outputs):
            torch.testing.assert_close(found[name], self.tensors[value], atol=atol, rtol=1e-4,
                                       check_dtype=False)
        return kinds(module)


def kinds(module):
    skipped = ('hbir.constant', 'qnt.const_fake_quant')
    return [op.name.split('.')[1] for op in operations(module) if op.name not in skipped]


@pytest.fixture
def g():
    return Graph()


def test_a_convolution_reads_the_image_as_it_is_stored(g):
    # One transpose: the output is given in logical order.
    assert g.check(g.conv()) == ['conv2d', 'transpose']


def test_pixels_become_tokens_without_moving(g):
    tokens = g.permute(g.reshape(g.conv(), 1, 8, 30), 0, 2, 1)
    assert g.check(g.linear(tokens)) == ['conv2d', 'reshape', 'linear']


def test_an_elementwise_op_brings_both_sides_into_one_order(g):
    x = g.conv()
    back = g.permute(g.linear(g.permute(x, 0, 2, 3, 1), 8), 0, 3, 1, 2)
    assert g.check(g.op('add', [x, back], torch.add)) == ['conv2d', 'linear', 'add', 'transpose']


def test_a_value_is_transposed_once_however_often_it_is_read(g):
    x = g.conv()
    a = g.op('matmul', [x, g.constant(torch.randn(1, 1, 5, 2))], torch.matmul)
    b = g.op('matmul', [x, g.constant(torch.randn(1, 1, 5, 3))], torch.matmul)
    assert g.check(a, b, atol=1e-2).count('transpose') == 1


def test_two_views_of_one_value_are_moved_each_in_its_own_way(g):
    x = g.conv()
    view = g.permute(x, 0, 1, 3, 2)
    a = g.op('matmul', [x, g.constant(torch.randn(1, 1, 5, 2))], torch.matmul)
    b = g.op('matmul', [view, g.constant(torch.randn(1, 1, 6, 2))], torch.matmul)
    g.check(a, b, atol=1e-2)


def test_dimensions_of_size_one_change_places_by_a_reshape(g):
    pooled = g.op('mean', ['image'], lambda t: t.mean((2, 3), keepdim=True), dims=[2, 3])
    assert g.check(pooled) == ['reduce_mean', 'reshape']


@pytest.mark.parametrize('kind, function', [
    ('add', torch.add), ('sub', torch.sub), ('mul', torch.mul), ('div', torch.div)])
def test_a_constant_operand_is_permuted_and_has_a_fake_quantizer(g, kind, function):
    x = g.conv()
    value = g.op(kind, [x, g.constant(torch.linspace(1, 2, 8).view(8, 1, 1))], function)
    g.check(value)
    module = g.lower(value)
    op = next(op for op in operations(module) if op.name == f'hbir.{kind}')
    rounding = op.operands[1].owner
    assert constant_array(rounding.operands[0]).shape == (1, 1, 1, 8)
    bits, scale, _ = fake_quant_scale(rounding)
    assert bits == 16 and scale == np.float32(0.001)


def test_an_infinite_constant_saturates(g):
    value = g.op('add', ['image', g.constant(torch.tensor([1.0, float('inf'), -float('inf'), 0,
                                                            2]))], torch.add)
    op = next(op for op in operations(g.lower(value)) if op.name == 'hbir.add')
    data = constant_array(op.operands[1].owner.operands[0])
    np.testing.assert_allclose(data.ravel(), [1, 32.768, -32.768, 0, 2])


@pytest.mark.parametrize('fn, function, params', [
    ('sigmoid', torch.sigmoid, {}), ('exp', torch.exp, {}), ('neg', torch.neg, {}),
    ('silu', F.silu, {}), ('square', torch.square, {}), ('tanh', torch.tanh, {}),
    ('add', lambda t: t + 3, dict(value=3.0)), ('mul', lambda t: t * -2, dict(value=-2.0)),
    ('rsub', lambda t: 1 - t, dict(value=1.0)), ('rdiv', lambda t: 2 / t, dict(value=2.0)),
    ('clamp', lambda t: t.clamp(min=0.1), dict(min=0.1)),
    ('clamp', lambda t: t.clamp(-1, 1), dict(min=-1, max=1)),
])
def test_unary_functions(g, fn, function, params):
    g.check(g.op('unary', ['image'], function, fn=fn, **params))


@pytest.mark.parametrize('kind, function', [
    ('sum', lambda t: t.sum((1, 3), keepdim=True)),
    ('mean', lambda t: t.mean((1, 3), keepdim=True)),
    ('amax', lambda t: t.amax((1, 3), keepdim=True))])
def test_reductions_reduce_where_the_dimensions_are_stored(g, kind, function):
    g.check(g.op(kind, [g.conv()], function, dims=[1, 3]))


def test_max_pool(g):
    g.check(g.op('max_pool2d', ['image'], lambda t: F.max_pool2d(t, 3, 2, 1), kernel=[3, 3],
                 stride=[2, 2], padding=[1, 1], dilation=[1, 1], ceil_mode=False))


@pytest.mark.parametrize('padding', ['zeros', 'border'])
def test_grid_sample(g, padding):
    grid = g.constant(torch.rand(1, 2, 3, 2) * 2.4 - 1.2)
    g.check(g.op('grid_sample', ['image', grid],
                 lambda x, p: F.grid_sample(x, p, padding_mode=padding, align_corners=False),
                 padding=padding), atol=1e-2)


def test_topk_and_gather(g):
    x = g.reshape('image', 4, 30)
    values = g.op('topk', [x], lambda t: t.topk(5, 1).values, k=5, dim=1, part='values')
    indices = g.op('topk', [x], lambda t: t.topk(5, 1).indices, k=5, dim=1, part='indices')
    picked = g.op('gather', [x, indices], lambda t, i: t.gather(1, i), dim=1)
    g.check(values, indices, picked)


def test_where_permutes_its_mask(g):
    mask = g.constant(torch.arange(6).view(1, 1, 6, 1) % 2 == 0)
    g.check(g.op('where', [mask, g.conv()], lambda m, t: t.masked_fill(m, -3.0), fill=-3.0))


def test_slices_are_cut_where_the_dimension_is_stored(g):
    g.check(g.op('slice', [g.conv()], lambda t: t[:, 1:7:2], dim=1, begin=1, end=7, step=2))


def test_expanding_and_tiling(g):
    row = g.op('slice', ['image'], lambda t: t[:, :, 1:2], dim=2, begin=1, end=2, step=1)
    g.check(g.op('expand', [row], lambda t: t.expand(1, 4, 7, 5)))
    g.check(g.op('expand', [row], lambda t: t.expand(2, 1, 4, 7, 5)))
    g.check(g.op('tile', [row], lambda t: t.repeat(1, 3, 1, 2)))


def test_concat_takes_constants_and_one_order(g):
    x = g.conv()
    y = g.permute(g.linear(g.permute(x, 0, 2, 3, 1), 8), 0, 3, 1, 2)
    z = g.constant(torch.rand(1, 2, 6, 5))
    value = g.op('concat', [x, y, z], lambda *t: torch.cat(t, 1), dim=1)
    assert g.check(value, atol=1e-2) == ['conv2d', 'linear', 'concat', 'transpose']


@pytest.mark.parametrize('dim', [0, 1, 3, 4])
def test_stack_in_any_dimension(g, dim):
    x = g.conv()
    y = g.op('unary', [x], torch.neg, fn='neg')
    g.check(g.op('stack', [x, y], lambda *t: torch.stack(t, dim), dim=dim))


def test_a_lower_rank_side_is_reshaped(g):
    row = g.reshape('image', 120)
    small = g.op('slice', [row], lambda t: t[:5], dim=0, begin=0, end=5, step=1)
    g.check(g.op('add', [g.conv(), small], torch.add))


def test_own_values_are_rounded_and_others_are_not(g):
    x = g.conv()
    y = g.op('relu', [x], torch.relu)
    z = g.op('unary', [y], torch.exp, fn='exp')
    g.scales.own.clear()
    g.scales.own.update({'image': ('int8', 0.02), y: ('int16', 0.001), z: ('int32', 1.0)})
    module = g.lower(z)
    roundings = {op.operands[0].owner.name: fake_quant_scale(op)[0] for op in operations(module)
                 if op.name == 'qnt.const_fake_quant' and hasattr(op.operands[0].owner, 'name')
                 and constant_array(op.operands[0]) is None}
    assert roundings == {'hbir.relu': 16}
    first = next(op for op in operations(module) if op.name == 'qnt.const_fake_quant')
    assert site_of(first) == 'image' and fake_quant_scale(first)[0] == 8


def test_weights_have_a_scale_per_output_channel(g):
    value = g.conv()
    op = next(op for op in operations(g.lower(value)) if op.name == 'hbir.conv2d')
    bits, scales, axis = fake_quant_scale(op.operands[1].owner)
    assert (bits, axis) == (8, 0)
    np.testing.assert_allclose(scales, g.scales.weights[value][1])
    assert constant_array(op.operands[1].owner.operands[0]).shape == (8, 3, 3, 4)
    assert attrs_of(op)['pad'] == [1, 1, 1, 1] and site_of(op) == 'model/conv2d.0'


def test_lowering_is_reproducible(g):
    value = g.linear(g.permute(g.conv(), 0, 2, 3, 1))
    assert print_text(g.lower(value)) == print_text(g.lower(value))


@pytest.mark.parametrize('kind, params, reason', [
    ('cumsum', {}, 'model/cumsum.0: no integer form of cumsum'),
    ('unary', dict(fn='sinh'), 'model/unary.0: no integer form of sinh')])
def test_an_op_without_an_integer_form_is_refused_with_its_site(g, kind, params, reason):
    with pytest.raises(BpuError, match=reason):
        g.lower(g.op(kind, ['image'], torch.sinh, **params))


def test_stacking_a_constant_is_refused_with_its_site(g):
    value = g.op('stack', ['image', g.constant(torch.zeros(IMAGE))],
                 lambda *t: torch.stack(t, 0), dim=0)
    with pytest.raises(BpuError, match='model/stack.0: stacking a constant tensor'):
        g.lower(value)
