"""Tensors that a model holds are constants of its graph, wherever it holds them."""
import torch

from mmdet_bpu.graph.capture import capture
from mmdet_bpu.graph.held_tensors import held_tensors
from tests.stock_families import build

IMAGE = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))


class Grid:
    """A plain object with tensors, as an anchor generator is."""

    def __init__(self):
        self.steps = [(torch.tensor([1.0]), 7), {'wide': torch.tensor([2.0])}]
        self.again = self

    def shifts(self, size):
        return torch.arange(0, size, dtype=torch.float32) * self.steps[0][0] \
            + self.steps[1]['wide']


def test_plain_objects_are_constants_and_so_is_what_is_made_of_them(toy):
    model = toy(lambda self, image: image * self.grid.shifts(image.shape[-1]))
    model.grid = Grid()
    captured = capture(model, torch.zeros_like(IMAGE))
    assert captured.sites() == ['/mul.0']
    assert torch.equal(captured.run(IMAGE)[0], model(IMAGE))


def test_tensors_that_factory_functions_make_are_constants(toy):

    def body(self, image):
        made = torch.tensor([1.0, 2.0]).sum() + torch.as_tensor(3) + image.new_tensor(4.0)
        grid = torch.meshgrid(torch.arange(4.0), torch.linspace(0, 1, 6), indexing='ij')[1]
        return image * (made + torch.full((1, ), 3.0) + grid + image.new_zeros(1))

    model = toy(body)
    captured = capture(model, torch.zeros_like(IMAGE))
    assert captured.sites() == ['/mul.0']
    assert torch.equal(captured.run(IMAGE)[0], model(IMAGE))


def test_each_tensor_is_found_once_and_depth_is_bounded(toy):
    model = toy(lambda self, image: image)
    shared, deep = torch.ones(1), torch.ones(2)
    model.first, model.second = [shared], dict(a=[shared])
    model.nested = [[[[[[deep]]]]]]
    found = held_tensors(model)
    assert [t.numel() for t in found] == [1, 1]  # its parameter and the shared tensor
    assert any(t is shared for t in found) and not any(t is deep for t in found)


def test_what_is_met_at_the_bound_is_looked_into_when_it_is_met_nearer(toy):
    model = toy(lambda self, image: image)
    inner = [torch.ones(5)]
    model.far, model.near = [[[inner]]], inner
    assert 5 in [t.numel() for t in held_tensors(model)]


def test_base_anchors_of_a_stock_head_are_found():
    model = build('retinanet')
    found = {id(t) for t in held_tensors(model)}
    assert all(id(t) in found for t in model.bbox_head.prior_generator.base_anchors)
