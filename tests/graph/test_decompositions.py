"""Calls that are written out in simpler functions: values, integers, and one table where it can be."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.analysis.qat_vs_int import defects
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import deploy_graph
from mmdet_bpu.quantization import model_report, prepare

SHAPE = (4, 6)


# Constants are made on the tensor path.
def positive():
    return torch.tensor([0.5, 1.5, 0.75]).view(3, 1, 1)


def l2_norm(x, scale):
    """As mmdet's SSDNeck writes it."""
    norm = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
    return scale[None, :, None, None].expand_as(x) * x / norm


def cosine_attention(x):
    """As Swin Transformer V2 writes it, without its mask."""
    scores = F.normalize(x, dim=-1) @ F.normalize(x.sigmoid(), dim=-1).transpose(-2, -1)
    return (scores * 4).softmax(-1) @ x


def overwritten(x, method, *arguments):
    """An in-place call that another name sees."""
    y = x.exp()
    other = y
    getattr(y, method)(*arguments)
    return other * y


OPENED = {
    'division by a tensor': lambda x: x / (x.exp().sum(1, keepdim=True) + 1),
    'division of a constant': lambda x: positive() / (x.exp() + 1),
    'division in place': lambda x: overwritten(x, 'div_', positive()),
    'division by assignment': lambda x: overwritten(x, '__itruediv__', x.cos().sum(1) + 9),
    'square': lambda x: x**2,
    'powers': lambda x: x.abs().pow(1.5) + torch.pow(x, 3) + x.abs()**torch.tensor(0.5),
    'negative powers': lambda x: (x.abs() + 1)**-2,
    'power by a constant': lambda x: x.sigmoid()**positive(),
    'power by a tensor': lambda x: x.sigmoid()**x.flip(-1).exp(),
    'L2 norm of SSD': lambda x: l2_norm(x, torch.tensor([20.0, 18.0, 3.0])),
    'normalize': lambda x: F.normalize(x, dim=1),
    'norms': lambda x: x.norm(dim=1) + torch.linalg.norm(x, dim=1) + torch.norm(x, 1, 1),
    'vector norm': lambda x: torch.linalg.vector_norm(x, ord=float('inf'), dim=(1, 2)),
    'prelu': lambda x: F.prelu(x, torch.tensor([0.25])),
    'prelu by channel': lambda x: torch.prelu(x, torch.tensor([0.25, -0.5, 1.5])),
    'clamp by tensors': lambda x: x.clamp(min=-positive(), max=positive()),
    'clamp by the image': lambda x: torch.clamp(x, torch.tensor(-0.1), max=x.flip(-1).exp()),
    'einsum of attention': lambda x: torch.einsum('nchw,nkhw->nck', x, x.exp()),
    'einsum with a query': lambda x: torch.einsum('nqc,nchw->nqhw', x.flatten(2)[:, :, :3], x),
    'einsum by rows': lambda x: torch.einsum('bchw,bcwk->bhck', x, x.mT),
    'addmm': lambda x: torch.addmm(x[0, 0, :, :4], x[0, 0], x[0, 1].t(), beta=0.5),
    'baddbmm': lambda x: torch.baddbmm(x[0, :, :, :4], x[0], x[0].mT, alpha=2),
    'attention': lambda x: F.scaled_dot_product_attention(x, x, x),
    'attention with a mask': lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.eye(4).bool() | (torch.arange(4) < 2)),
    'attention with a bias': lambda x: F.scaled_dot_product_attention(
        x, x, x, torch.rand(4, 4), 0.0, scale=0.3),
    'cosine attention': cosine_attention,
}


@pytest.mark.parametrize('name', OPENED)
def test_what_is_opened_computes_the_same_and_rounds_as_training_does(through, name):
    run = through(lambda self, x: OPENED[name](x))
    assert 'div' not in run.kinds and run.comparison['max_lsb'] <= 1


@pytest.mark.parametrize('body', [
    lambda x: x / (1 + x.abs()),
    lambda x: torch.log(x.clamp(min=0.1) / (1 - x).clamp(min=0.1)),
    lambda x: (1 - x).exp() / x.float().cos().clamp(min=0.3),
], ids=['softsign', 'inverse sigmoid', 'functions'])
def test_a_division_of_functions_of_one_value_stays_one_table(through, body):
    run = through(lambda self, x: body(x))
    assert 'div' in run.kinds and run.instructions == ['table', 'transpose']


def test_a_square_of_integers_is_a_multiplication(through):
    assert through(lambda self, x: x**2).instructions == ['mul', 'transpose']


def test_the_divisor_of_an_l2_norm_is_one_table_with_int16_around_it(through):
    run = through(lambda self, x: l2_norm(x, torch.tensor([20.0, 18.0, 3.0])))
    assert sorted(run.instructions) == ['mul', 'mul', 'mul', 'reduce_sum', 'table', 'transpose']
    rules = {row['site'].rpartition('/')[2]: (row['dtype'], row['rule'])
             for row in model_report(run.model)}
    assert rules['pow.0'] == ('int16', 'template: terms of a divisor')
    assert rules['sum.0'] == ('int16', 'template: divisor')
    assert rules['div.reciprocal.0'] == ('int16', 'template: reciprocal of a divisor')


@pytest.mark.parametrize('slopes', [1, 3])
@pytest.mark.parametrize('dtype', ['int8', 'int16'])
def test_a_prelu_behind_a_convolution_rounds_as_training_does(through, slopes, dtype):
    """Three int8 terms make an int16 sum: their bias counts in units coarser than its LSB."""
    torch.manual_seed(5)
    conv = nn.Conv2d(3, 3, 1)
    run = through(lambda self, x: self.act(self.conv(x)) * 2, conv=conv, act=nn.PReLU(slopes),
                  qconfig=[dict(site='conv*', dtype=dtype)])
    rows = {row['kind']: row for row in run.comparison['ops']}
    assert set(rows) >= {'conv2d', 'mul', 'add'} and rows['conv2d']['dtype'] == f'si{dtype[3:]}'
    assert not defects(run.comparison)
    assert all(row['max_lsb'] <= 1 for kind, row in rows.items() if kind != 'conv2d')


def test_slopes_that_are_trained_stay_tensors(through):
    run = through(lambda self, x: self.act(x) * 2, act=nn.PReLU(3))
    run.model.act.weight.data.fill_(4.0)
    with torch.no_grad():
        output = run.model(torch.full((1, 3, *SHAPE), -0.5))
    assert output.mean() < -1, 'saturated, not the slope of the capture'
    weight = run.model.act.weight
    run.model(torch.full((1, 3, *SHAPE), -0.5)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize('shape', [(2, 40000), (300, 300)])
def test_long_means_are_made_in_steps(toy, shape):
    model = toy(lambda self, x: x.mean((2, 3), keepdim=True) + x.sum((1, 2, 3), keepdim=True))
    _, graph = deploy_graph(model, shape)
    dims = [op.params['dims'] for op in graph.ops if op.kind in ('mean', 'sum')]
    assert dims == [[3], [2], [3], [2], [1]]
    prepared = prepare(model, dict(input_shape=shape))
    steps = {row['site']: row['dtype'] for row in model_report(prepared)
             if 'long reduction' in row['rule']}
    assert set(steps.values()) == {'int16'} and len(steps) == 3


@pytest.mark.parametrize('body, message', [
    (lambda x: 2**x, 'no integer form of rpow'),
    (lambda x: torch.pow(2.0, x), 'pow with these arguments'),
    (lambda x: torch.einsum('nchw->ncwh', x), 'einsum with these arguments'),
    (lambda x: torch.einsum('nchw,nchw->nc', x, x[:, :, :, :1]), 'shape'),
    (lambda x: x.norm(), 'norm with these arguments'),
    (lambda x: x.norm(3, 1), 'norm with these arguments'),
    (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), 'these arguments'),
], ids=['rpow', 'pow of a number', 'one operand', 'broadcast', 'all elements', 'p', 'causal'])
def test_what_cannot_be_opened_is_refused(toy, body, message):
    with pytest.raises((BpuError, RuntimeError), match=message):
        deploy_graph(toy(lambda self, x: body(x)), SHAPE)
