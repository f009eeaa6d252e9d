"""Spellings of torch calls as kinds: equal values, and an integer form or a refusal."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.lowering.export import export_model
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.quantization import prepare
from mmdet_bpu.graph.deploy_graph import deploy_graph

SHAPE = (4, 6)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


# Made on the tensor path, as a constant must be (or it belongs to the model).
def positive():
    return torch.tensor([0.5, 1.5, 0.75]).view(3, 1, 1)


def weight(out=5, inputs=3):
    return torch.randn(out, inputs, 3, 3) * 0.3


def grid():
    return torch.rand(1, 3, 5, 2) * 2.4 - 1.2


SPELLINGS = {
    'pad that others read': lambda x: F.pad(x, (1, 0, 2, 1)) * 2,
    'add': lambda x: torch.add(x, x.exp()) + positive(),
    'add number': lambda x: 1.5 + x + 0.25,
    'add zero': lambda x: 2 * (x + 0),
    'sub': lambda x: torch.sub(x, torch.flip(positive(), (0, ))),
    'number minus': lambda x: 1 - x,
    'mul': lambda x: x * torch.sigmoid(x) * positive(),
    'mul number': lambda x: 2 * x * 0.5 * 3,
    'mul negative': lambda x: x * -2.0,
    'div number': lambda x: x / 4,
    'div constant': lambda x: x / positive(),
    'number over': lambda x: 1 / (x.exp() + 1),
    'maximum of a constant': lambda x: torch.maximum(x, torch.tensor(0.1)),
    'clamp': lambda x: x.clamp(-0.5, 0.7).clip(max=0.6),
    'clamp keywords': lambda x: torch.clamp(x, min=-0.1),
    'hardtanh': lambda x: F.hardtanh(x, -0.5, 0.5),
    'relu6': lambda x: F.relu6(x),
    'unary': lambda x: torch.sin(x).abs().sqrt().tanh(),
    'neg': lambda x: -x.cos(),
    'silu': lambda x: F.silu(x),
    'relu': lambda x: torch.relu(x),
    'softmax': lambda x: x.softmax(1),
    'softmax of torch': lambda x: F.softmax(torch.softmax(x, dim=-1), -1),
    'layer norm': lambda x: F.layer_norm(x, (6, ), torch.rand(6) + 0.5, torch.rand(6)),
    'group norm': lambda x: F.group_norm(x.repeat(1, 4, 1, 1), 2),
    'sum': lambda x: x.sum(-1),
    'mean keepdim': lambda x: x.mean((2, 3), keepdim=True),
    'mean of all': lambda x: x.mean().view(1, 1),
    'amax': lambda x: torch.amax(x, 1, keepdim=True),
    'global pool': lambda x: F.adaptive_avg_pool2d(x, 1),
    'conv': lambda x: F.conv2d(x, weight(), torch.ones(5), stride=2, padding=(1, 0), dilation=1),
    'conv dilated': lambda x: F.conv2d(x, weight(), None, 1, 2, 2),
    'depthwise': lambda x: F.conv2d(x, weight(3, 1), padding=1, groups=3),
    'padded conv': lambda x: F.conv2d(F.pad(x, (0, 1, 1, 2)), weight(), padding=1),
    'linear': lambda x: F.linear(x, torch.randn(7, 6), torch.randn(7)),
    'matmul': lambda x: torch.matmul(x, x.transpose(-1, -2)),
    'bmm operator': lambda x: x.flatten(0, 1) @ x.flatten(0, 1).permute(0, 2, 1),
    'bmm constant': lambda x: torch.bmm(x[0], torch.ones(3, 6, 2)),
    'max pool': lambda x: F.max_pool2d(x, 3, 2, 1),
    'max pool ceil': lambda x: F.max_pool2d(x, (2, 3), ceil_mode=True),
    'reshapes': lambda x: x.view(3, -1).unsqueeze(0).flatten(1).reshape(2, 36).squeeze(),
    'permutes': lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).swapaxes(0, 3),
    'index': lambda x: x[:, 1:, ..., ::2][..., None, 0],
    'negative index': lambda x: x[0, -1, :, -3:],
    'split': lambda x: torch.cat([p * (i + 1) for i, p in enumerate(x.split(4, -1))], -1),
    'split sizes': lambda x: x.split([1, 5], dim=3)[1],
    'chunk': lambda x: torch.stack(x.chunk(2, -1), 1),
    'unbind': lambda x: torch.stack(x.unbind(1)[::-1], 1),
    'iterate': lambda x: torch.cat([row.exp() for row in x[0]]),
    'cat with a constant': lambda x: torch.cat([x, torch.ones(1, 2, 4, 6)], 1),
    'stack': lambda x: torch.stack([x, x.sigmoid()], -1),
    'expand': lambda x: x[:, :1].expand(-1, 3, -1, -1) + x,
    'repeat': lambda x: x.repeat(1, 2, 1, 3),
    'repeat more dimensions': lambda x: x[0].repeat(2, 1, 1, 1),
    'grid sample': lambda x: F.grid_sample(x, grid(), align_corners=False),
    'computed grid': lambda x: F.grid_sample(
        x, F.conv2d(x, weight(2)).permute(0, 2, 3, 1), padding_mode='border', align_corners=False),
    'topk and gather': lambda x: x.flatten(1).gather(1, x.flatten(1).topk(5, 1)[1]),
    'topk values': lambda x: x.flatten(1).topk(5).values,
    'masked fill': lambda x: x.masked_fill(torch.eye(4, 6).bool(), 0.5),
    'dropout': lambda x: F.dropout(x, 0.5, training=False) * 2,
    'casts': lambda x: x.float().to(x.dtype).type_as(x).contiguous().clone().exp(),
    'scalar tensor': lambda x: x * torch.full((3, 1, 1), 0.5),
}


@pytest.mark.parametrize('name', SPELLINGS)
def test_the_graph_computes_what_the_calls_compute(toy, execute, name):
    torch.manual_seed(0)

    def body(self, image):
        torch.manual_seed(0)
        return SPELLINGS[name](image)

    model = toy(body)
    _, graph = deploy_graph(model, SHAPE)
    torch.testing.assert_close(execute(graph, IMAGE)[0], model(IMAGE), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', SPELLINGS)
def test_what_the_graph_holds_has_an_integer_form(toy, calibrated, name):

    def body(self, image):
        torch.manual_seed(0)
        return SPELLINGS[name](image)

    model = calibrated(prepare(toy(body), dict(input_shape=SHAPE)), IMAGE)
    integer, _ = convert(export_model(model))
    integer.verify()


@pytest.mark.parametrize('body, message', [
    (lambda self, x: torch.add(x, x.exp(), alpha=2), 'add with alpha'),
    (lambda self, x: x.div(2, rounding_mode='floor'), 'rounding_mode'),
    (lambda self, x: F.conv2d(x, weight(), padding='same'), "padding 'same'"),
    (lambda self, x: x.topk(2, largest=False).values, 'smallest'),
    (lambda self, x: F.grid_sample(x, grid(), align_corners=True), 'align_corners=False'),
    (lambda self, x: F.grid_sample(x, grid(), mode='nearest'), 'only bilinear'),
    (lambda self, x: (x * 3).to(torch.int64), 'a cast from torch.float32 to torch.int64'),
], ids=['alpha', 'rounding', 'same', 'smallest', 'corners', 'nearest', 'cast'])
def test_arguments_without_an_integer_form_are_refused(toy, body, message):
    with pytest.raises(BpuError, match=rf'^/\S+ cannot be lowered: .*{message}'):
        deploy_graph(toy(body), SHAPE)


def test_pooling_to_more_than_one_pixel_is_refused(toy):
    with pytest.raises(BpuError, match='adaptive_avg_pool2d with these arguments'):
        deploy_graph(toy(lambda self, x: F.adaptive_avg_pool2d(x, 2)), SHAPE)


def test_a_large_map_is_averaged_in_two_steps(toy):
    model = toy(lambda self, x: F.adaptive_avg_pool2d(x[:, :1], 1))
    _, graph = deploy_graph(model, (2, 32768))
    assert [op.params['dims'] for op in graph.ops if op.kind == 'mean'] == [[3], [2]]


def test_layers_stacked_only_to_be_taken_apart_are_not_in_the_graph(toy):
    model = toy(lambda self, x: torch.stack([x.exp(), x.sin()])[1] + 1)
    _, graph = deploy_graph(model, SHAPE)
    assert [op.params.get('fn', op.kind) for op in graph.ops] == ['sin', 'add']


def test_a_scalar_that_is_trained_stays_a_tensor(toy):
    model = toy(lambda self, x: x * self.scale.weight, scale=nn.PReLU(init=2.0))
    _, graph = deploy_graph(model, SHAPE)
    assert [op.kind for op in graph.ops] == ['mul'], 'not a scale that is fixed at export'
