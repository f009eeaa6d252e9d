"""How far the integers of weights reach: chosen at calibration, kept while the weights train."""
import numpy as np
import pytest
import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import prepare, quantization_of, quantized_graphs
from mmdet_bpu.quantization.fake_quant import fake_quantize_weight
from mmdet_bpu.quantization.weight_reach import reach_of

SHAPE = (8, 12)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(4))


def with_outliers() -> torch.Tensor:
    """Weights (6, 40): the first three channels have one that stands alone, the last is zero."""
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    weight[:3, 7] = torch.tensor([9.0, -30.0, 200.0])
    weight[5] = 0
    return weight


def test_by_mse_no_other_reach_is_better():
    weight = with_outliers()
    reach = reach_of(weight, 'mse')

    def errors(factor):
        return (fake_quantize_weight(weight, reach=factor) - weight).square().sum(1)

    best = torch.stack([errors(torch.full((6, ), r / 200)) for r in range(1, 201)]).amin(0)
    assert (errors(reach) <= 1.05 * best + 1e-9).all()
    assert reach[5] == 1 and (reach <= 1).all() and (reach > 0).all()
    torch.testing.assert_close(reach_of(weight, 'minmax'), torch.ones(6))


def test_what_lies_beyond_saturates_and_has_no_gradient():
    weight = torch.tensor([[1.0, 0.5, -0.2, -1.0]], requires_grad=True)
    rounded = fake_quantize_weight(weight, reach=torch.tensor([0.5]))
    rounded.sum().backward()
    assert weight.grad.tolist() == [[0, 1, 1, 0]]
    np.testing.assert_allclose(rounded.detach(), [[0.5, 0.5, -0.2008, -0.5039]], atol=1e-4)


@pytest.fixture
def prepared(toy, calibrated):
    """Function (rules, settings of calibration) -> a calibrated toy of three products."""

    def build(rules=(), **calibration):
        torch.manual_seed(3)
        modules = dict(conv=nn.Conv2d(3, 8, 3), up=nn.ConvTranspose2d(8, 6, 2, 2, groups=2),
                       last=nn.Conv2d(6, 4, 3))
        with torch.no_grad():
            for module in modules.values():
                module.weight.view(-1)[5] = 4.0
        model = toy(lambda d, image: d.last(d.up(d.conv(image))), **modules)
        return calibrated(prepare(model, dict(
            input_shape=SHAPE, calibration=dict(observer='minmax', **calibration),
            qconfig=list(rules))), IMAGE)

    return build


def reaches(model):
    reach = quantization_of(model).reach
    return {name.split('.')[0]: reach.of(name) for name in reach.names}


def test_rules_go_before_the_default(prepared):
    assert reaches(prepared()) == {}
    found = reaches(prepared([dict(site='conv*', weight_observer='minmax'),
                              dict(site='up*', weight_observer=dict(type='percentile', percentile=90))],
                             weight_observer='mse'))
    assert found.keys() == {'up', 'last'} and len(found['up']) == 6 and len(found['last']) == 4
    assert (found['up'] < 1).any() and (found['last'] <= 1).all()


def test_a_rule_about_weights_leaves_the_activations_to_the_next(prepared):
    model = prepared([dict(site='last*', weight_observer='mse'), dict(site='last*', dtype='int16')])
    assert reaches(model).keys() == {'last'}
    wide = [name for name, each in quantization_of(model).quantizers.items() if each.dtype == 'int16']
    assert len(wide) == 1 and wide[0].startswith('last')


def test_the_graph_has_the_weights_that_ran(prepared, execute):
    model = prepared(weight_observer='mse')
    network, = quantized_graphs(model)
    for op in network.graph.ops:
        if op.output in network.scales.weights:
            dtype, scale = network.scales.weights[op.output]
            module = getattr(model, op.path)
            groups = op.params['groups'] if op.kind == 'conv_transpose2d' else None
            expected = fake_quantize_weight(module.weight, dtype, groups,
                                            quantization_of(model).reach.of(network.weight_name(op)))
            on_grid = expected.detach() if groups is None else None
            if on_grid is not None:
                steps = on_grid.flatten(1) / torch.as_tensor(scale)[:, None]
                torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
                assert steps.abs().max() <= 128


def test_the_reach_stays_while_the_weights_train(prepared):
    model = prepared(weight_observer='mse').train()
    before = {name: reach.clone() for name, reach in reaches(model).items()}
    scale = quantized_graphs(model)[0].scales.weights
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    after = quantized_graphs(model)[0].scales.weights
    assert all(torch.equal(reach, before[name]) for name, reach in reaches(model).items())
    for name, (_, each) in after.items():
        np.testing.assert_allclose(each, 3 * scale[name][1], rtol=1e-6)


def test_what_reads_no_statistics_is_refused(prepared):
    with pytest.raises(BpuError, match=r'qconfig\[0\].weight_observer: expected one of'):
        prepared([dict(op='conv2d', weight_observer='nothing')])
