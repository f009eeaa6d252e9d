"""Where quantizers go."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.graph.deploy_graph import (capture_detector, deploy_graph, deployed_part,
                                          open_attention)
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.quantization.fold import fold_captured
from mmdet_bpu.quantization.placement import place

SHAPE = (4, 6)


def conv(**options):
    return nn.Conv2d(3, 3, 3, padding=1, **options)


def placed(toy, body, **modules):
    """(graph, placement, {op name: kind of its value}) of a toy; ops are named fn.index."""
    _, graph = deploy_graph(toy(body, **modules), SHAPE)
    placement = place(graph)
    counts, kinds, outputs = {}, {}, {}
    for op in graph.ops:
        name = op.params.get('fn', op.kind)
        counts[name] = counts.get(name, -1) + 1
        kinds[f'{name}.{counts[name]}'] = placement.kinds[op.output]
        outputs[f'{name}.{counts[name]}'] = op.output
    return graph, placement, kinds, outputs


def test_conv_add_relu_is_one_step(toy):
    _, _, kinds, _ = placed(toy, lambda self, x: torch.relu(self.conv(x) + x), conv=conv())
    assert kinds == {'conv2d.0': 'fused', 'add.0': 'fused', 'relu.0': 'own'}


def test_conv_relu_is_one_step_and_a_relu_that_others_read_around_is_not(toy):

    def body(self, x):
        y = self.conv(x)
        return torch.relu(y) + y.exp()

    _, _, kinds, _ = placed(toy, body, conv=conv())
    assert kinds['conv2d.0'] == 'own' and kinds['relu.0'] == 'alias'


def test_of_two_convs_that_meet_one_is_the_accumulator_and_one_the_residual(toy):

    def body(self, x):
        return torch.relu(self.a(x) + self.b(x))

    _, _, kinds, _ = placed(toy, body, a=conv(), b=conv())
    assert sorted([kinds['conv2d.0'], kinds['conv2d.1']]) == ['fused', 'own']
    assert kinds['add.0'] == 'fused' and kinds['relu.0'] == 'own'


def test_the_same_conv_added_to_itself_is_not_fused(toy):

    def body(self, x):
        y = self.conv(x)
        return y + y

    _, _, kinds, _ = placed(toy, body, conv=conv())
    assert kinds == {'conv2d.0': 'own', 'add.0': 'own'}


def test_a_residual_that_broadcasts_is_not_fused(toy):

    def body(self, x):
        return self.conv(x) + x[:, :, :1]

    _, _, kinds, _ = placed(toy, body, conv=conv())
    assert kinds['conv2d.0'] == 'own'


def test_an_output_is_never_fused_away(toy):

    def body(self, x):
        y = self.conv(x)
        return y, torch.relu(y)

    _, _, kinds, _ = placed(toy, body, conv=conv())
    assert kinds['conv2d.0'] == 'own'


def test_inverse_sigmoid_is_one_chain_from_one_value(toy):

    def body(self, x):
        x = self.conv(x).sigmoid()
        x = x.clamp(0, 1)
        return torch.log(x.clamp(min=1e-3) / (1 - x).clamp(min=1e-3)) * 1.5

    graph, placement, kinds, outputs = placed(toy, body, conv=conv())
    end = placement.integers(graph.outputs[0])
    assert kinds['conv2d.0'] == 'own'
    assert all(kind == 'fused' for name, kind in kinds.items()
               if outputs[name] not in (end, graph.outputs[0], outputs['conv2d.0']))
    assert placement.root[end] == outputs['conv2d.0']


def test_swish_written_as_a_product_is_one_chain(toy):
    _, placement, kinds, outputs = placed(
        toy, lambda self, x: _swish(self.conv(x)), conv=conv())
    assert kinds == {'conv2d.0': 'own', 'sigmoid.0': 'fused', 'mul.0': 'own'}
    assert placement.root[outputs['mul.0']] == outputs['conv2d.0']


def _swish(x):
    return x * torch.sigmoid(x)


def test_a_chain_ends_where_something_else_reads_it(toy):

    def body(self, x):
        s = torch.sigmoid(x)
        return torch.exp(s), s

    _, _, kinds, _ = placed(toy, body)
    assert kinds == {'sigmoid.0': 'own', 'exp.0': 'own'}


def test_a_product_of_two_functions_of_different_values_is_no_chain(toy):

    def body(self, x):
        return torch.sigmoid(self.conv(x)) * torch.tanh(x)

    _, _, kinds, _ = placed(toy, body, conv=conv())
    assert kinds['sigmoid.0'] == kinds['tanh.0'] == kinds['mul.0'] == 'own'


def test_a_positive_factor_changes_only_the_scale(toy):
    graph, placement, kinds, outputs = placed(toy, lambda self, x: (torch.exp(x) * 2 / 8)[:, :1])
    assert kinds == {'exp.0': 'own', 'scale.0': 'alias', 'scale.1': 'alias', 'slice.0': 'alias'}
    assert placement.integers(graph.outputs[0]) == outputs['exp.0']
    assert placement.scale_factor(graph.outputs[0]) == 0.25


def test_a_positive_factor_between_two_functions_is_inside_their_chain(toy):
    """mmcv's HSigmoid: ``clamp((x + 3) / 6, 0, 1)`` is one table, not two."""
    graph, placement, kinds, outputs = placed(
        toy, lambda self, x: torch.clamp((x + 3) / 6, 0, 1).exp())
    assert kinds == {'add.0': 'fused', 'scale.0': 'fused', 'clamp.0': 'fused', 'exp.0': 'own'}
    assert placement.root[outputs['exp.0']] == graph.inputs[0]


def test_a_positive_factor_behind_a_function_changes_only_the_scale(toy):
    _, _, kinds, _ = placed(toy, lambda self, x: torch.sigmoid(x + 3) / 6)
    assert kinds == {'add.0': 'fused', 'sigmoid.0': 'own', 'scale.0': 'alias'}


def test_a_factor_that_others_read_around_the_chain_keeps_the_integers_before_it(toy):

    def body(self, x):
        third = torch.sigmoid(x) / 3
        return torch.exp(third), self.conv(third)

    graph, placement, kinds, outputs = placed(toy, body, conv=conv())
    assert kinds == {'sigmoid.0': 'own', 'scale.0': 'alias', 'exp.0': 'own', 'conv2d.0': 'own'}
    assert placement.root[outputs['exp.0']] == outputs['scale.0']


def test_a_negative_factor_has_integers_of_its_own(toy):
    _, _, kinds, _ = placed(toy, lambda self, x: self.conv(x) * -2, conv=conv())
    assert kinds == {'conv2d.0': 'own', 'mul.0': 'own'}


def test_a_factor_in_front_of_a_concat_is_rounded_to_the_shared_scale(toy):
    _, _, kinds, _ = placed(toy, lambda self, x: torch.cat([x.exp() * 2, x.sin()], 1))
    assert kinds['scale.0'] == 'own'


def test_parts_of_a_concat_share_one_quantizer(toy):
    graph, placement, kinds, outputs = placed(
        toy, lambda self, x: torch.cat([x.exp(), x.sin(), torch.ones(1, 1, 4, 6)], 1))
    assert placement.find(outputs['exp.0']) == placement.find(outputs['sin.0'])
    assert kinds['concat.0'] == 'alias'
    assert placement.constants == {(graph.outputs[0], 2): outputs['exp.0']}


def test_samples_share_the_quantizer_of_what_is_sampled(toy):

    def body(self, x):
        grid = self.conv(x)[:, :2].permute(0, 2, 3, 1)
        return F.grid_sample(x.exp(), grid, align_corners=False)

    _, placement, _, outputs = placed(toy, body, conv=conv())
    assert placement.find(outputs['grid_sample.0']) == placement.find(outputs['exp.0'])


def test_indices_of_a_top_k_have_no_scale(toy):

    def body(self, x):
        flat = x.flatten(1)
        return flat.gather(1, flat.topk(3, 1)[1])

    graph, placement, kinds, _ = placed(toy, body)
    assert kinds['topk.0'] == 'index'
    assert placement.integers(graph.outputs[0]) == graph.inputs[0]


@pytest.mark.parametrize('variant', ['', '-refine', '-refine-twostage'])
def test_every_value_that_an_op_reads_has_integers(small_detector, variant):
    """The whole contract, on stock detectors: own, an alias of own, constant, index, or fused."""
    model = small_detector(variant)
    open_attention(model)
    captured = capture_detector(model, (64, 64))
    fold_captured(model, captured)
    graph = deployed_part(model, captured)
    placement = place(graph)
    own = set(QuantizedGraph(graph, placement, {}).own_values())
    users = graph.users()
    assert set(placement.group) == own
    for op in graph.ops:
        assert placement.kinds[op.output] in ('own', 'alias', 'fused', 'index')
        for name in graph.variable_inputs(op):
            kind = placement.kinds[name]
            if kind == 'alias':
                assert placement.integers(name) in own
            if kind != 'fused':
                continue
            if name in placement.root:  # inside a chain: its members alone read it
                assert placement.root.get(op.output) == placement.root[name]
            else:  # an accumulator: one add or relu takes it
                assert op.kind in ('add', 'relu') and users[name] == [op]
    for name in graph.outputs:
        assert placement.kinds[name] in ('own', 'alias')
    for root in placement.root.values():
        assert placement.integers(root) in own
