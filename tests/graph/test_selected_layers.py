"""A selected layer is computed without the layers that are not selected."""
import pytest
import torch
from torch import nn

from mmdet_bpu.graph.deploy_graph import deploy_graph

IMAGE = torch.randn(1, 3, 5, 8, generator=torch.Generator().manual_seed(0))


def layers(self, x):
    """Three layers' states (3, N, 5, 8), as a decoder stacks them."""
    states = [x[:, 0]]
    for _ in range(2):
        states.append(torch.sigmoid(self.step(states[-1])))
    return torch.stack(states)


def refined(self, states):
    """As DAB-DETR's head adds references of all layers."""
    boxes = self.second(torch.relu(self.first(states)))
    references = torch.stack([state[..., :2].sigmoid() for state in states])
    boxes[..., :2] += torch.log(references / (1 - references).clamp(min=1e-3))
    return boxes.sigmoid()


def normed(self, states):
    centred = states - states.mean(-1, keepdim=True)
    return self.first(centred * torch.arange(1.0, 4.0).view(3, 1, 1, 1) * self.gain)


HEADS = {
    'linear': lambda self, states: self.first(states),
    'mlp': lambda self, states: self.second(torch.relu(self.first(states))).sigmoid(),
    'references': refined,
    'norm and constants': normed,
    'halves': lambda self, states: torch.cat([states[..., 4:] * 2, states[..., :4]], -1) + 1,
}


def build(toy, head, index):
    return toy(lambda self, image: head(self, layers(self, image))[index],
               step=nn.Linear(8, 8), first=nn.Linear(8, 8), second=nn.Linear(8, 4),
               gain=nn.ParameterList([]))


@pytest.mark.parametrize('index', [-1, 0])
@pytest.mark.parametrize('name', HEADS)
def test_the_selected_layer_is_the_same_and_no_other_is_computed(toy, execute, name, index):
    model = build(toy, HEADS[name], index)
    model.gain = nn.Parameter(torch.rand(8))
    _, graph = deploy_graph(model, (5, 8))
    torch.testing.assert_close(execute(graph, IMAGE)[0], model(IMAGE))
    assert not [op for op in graph.ops if op.kind == 'stack']
    assert not [op for op in graph.ops if graph.values[op.output].shape[0] == 3]
    assert len([op for op in graph.ops if op.path == 'step']) == (2 if index else 0)


def test_a_product_stays_the_output_so_that_it_keeps_its_accumulators(toy):
    _, graph = deploy_graph(build(toy, HEADS['linear'], -1), (5, 8))
    producer = graph.producers()[graph.outputs[0]]
    assert (producer.kind, producer.path) == ('linear', 'first')
    assert producer.key is not None, 'the site that training runs on all layers'


def test_what_mixes_the_layers_is_cut_after_it(toy, execute):

    def body(self, image):
        states = layers(self, image)
        mixed = states + states.mean(0, keepdim=True)
        return self.first(mixed)[1]

    model = toy(body, step=nn.Linear(8, 8), first=nn.Linear(8, 8))
    _, graph = deploy_graph(model, (5, 8))
    torch.testing.assert_close(execute(graph, IMAGE)[0], model(IMAGE))
    assert graph.values[graph.outputs[0]].shape == (1, 5, 8)


def test_what_something_else_reads_is_computed_once(toy, execute):

    def body(self, image):
        shared = torch.relu(self.first(layers(self, image)))
        return shared[-1], shared.sum(0)

    model = toy(body, step=nn.Linear(8, 8), first=nn.Linear(8, 8))
    _, graph = deploy_graph(model, (5, 8))
    for output, expected in zip(execute(graph, IMAGE), model(IMAGE), strict=True):
        torch.testing.assert_close(output, expected)
    assert len([op for op in graph.ops if op.path == 'first']) == 1
