"""What capture must refuse, and in-place calls that it must not get wrong."""
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.capture import capture
from mmdet_bpu.graph.deploy_graph import deploy_graph

IMAGE = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))


class Square(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def compiled_square(x):
    """What a compiled extension is to a tracer: a result without a call."""
    with torch._C.DisableTorchFunction():
        return x * x


def test_a_tensor_that_no_call_has_made_is_refused_between_its_sites(toy):

    def body(self, image):
        return torch.exp(compiled_square(torch.sigmoid(image)))

    with pytest.raises(BpuError, match=r'reads a tensor of shape \(1, 3, 4, 6\).*sigmoid\.0.*'
                       'custom autograd function or a compiled op'):
        capture(toy(body), IMAGE)


def test_an_output_of_unknown_producer_is_refused(toy):
    with pytest.raises(BpuError, match='output 0 of the head reads a tensor'):
        capture(toy(lambda self, image: compiled_square(image)), IMAGE)


def test_a_custom_function_of_torch_calls_is_seen_through(toy):
    model = toy(lambda self, image: Square.apply(image) + 1)
    captured = capture(model, torch.zeros_like(IMAGE))
    assert captured.sites() == ['/mul.0', '/add.0']
    assert torch.equal(captured.run(IMAGE)[0], model(IMAGE))


@pytest.mark.parametrize('read', [
    lambda x: x if x.sum() > 0 else -x,
    lambda x: x * x.max().item(),
    lambda x: x * x.flatten().tolist()[0],
    lambda x: x * float(x.max()),
    lambda x: x[:, :int(x.argmax()) % 3 + 1],
], ids=['if', 'item', 'tolist', 'float', 'int'])
def test_a_python_value_from_the_image_is_refused(toy, read):
    with pytest.raises(BpuError, match='depends on the image into a Python value'):
        capture(toy(lambda self, image: read(image)), IMAGE)


def test_shapes_of_tensors_are_python_values_that_may_be_read(toy):
    model = toy(lambda self, image: image * image.shape[-1] + image.size(2) + len(image))
    assert torch.equal(capture(model, IMAGE).run(IMAGE)[0], IMAGE * 6 + 4 + 1)


def test_reading_an_overwritten_tensor_through_another_name_is_refused(toy):

    def body(self, image):
        x = torch.sigmoid(image)
        view = x.view(-1)
        x.mul_(2)
        return view + 1

    with pytest.raises(BpuError, match='mul.0 has overwritten through another name'):
        capture(toy(body), IMAGE)


def _set_part(x):
    x[..., 1:3] = torch.exp(x[..., 1:3])
    return x


def _add_to_view(x):
    x[..., :2] += 1.5
    return x


def _chain(x):
    x += 1
    x *= 2
    x -= 0.5
    x /= 4
    return x.sigmoid_()


def _relu(x):
    y = F.relu(x, inplace=True)
    return y + x  # x is the same memory


IN_PLACE = {
    'setitem': _set_part,
    'add to a view': _add_to_view,
    'augmented assignments': _chain,
    'relu inplace': _relu,
    'relu_': lambda x: x.relu_() + x,
    'clamp_': lambda x: x.clamp_(-0.5, 0.5) * 2,
    'module inplace': lambda x: torch.nn.ReLU(inplace=True)(x) * 3,
}


@pytest.mark.parametrize('name', IN_PLACE)
def test_in_place_calls_become_functions_of_the_same_value(toy, execute, name):
    model = toy(lambda self, image: IN_PLACE[name](image - 0.25))
    expected = model(IMAGE)
    captured = capture(model, torch.zeros_like(IMAGE))
    assert torch.equal(captured.run(IMAGE)[0], expected)
    again = captured.run(IMAGE)[0]
    assert torch.equal(again, expected), 'running the graph must not change its inputs'
    _, graph = deploy_graph(model, (4, 6))
    torch.testing.assert_close(execute(graph, IMAGE)[0], expected)


def test_a_new_tensor_written_with_image_values_is_not_a_hole(toy):
    """``zeros_like(x)[..., :2] = x[..., :2]``: the constant becomes dependent on the image."""

    def body(self, image):
        buffer = torch.zeros_like(image)
        buffer[..., :2] = image[..., :2]
        return buffer * 3

    model = toy(body)
    assert torch.equal(capture(model, torch.zeros_like(IMAGE)).run(IMAGE)[0], model(IMAGE))


@pytest.mark.parametrize('body, function', [
    (lambda self, x: torch.cumsum(x, 1), 'cumsum'),
    (lambda self, x: x.masked_fill(x == 0, 1.0), 'eq'),
], ids=['cumsum', 'mask'])
def test_an_op_that_cannot_be_lowered_is_refused_with_its_site(toy, body, function):
    with pytest.raises(BpuError, match=f'cannot be lowered: .*{function}') as error:
        deploy_graph(toy(body), (4, 6))
    assert str(error.value).split()[0].count('/') == 1, 'the message begins with the site'


def test_a_model_that_is_no_detector_is_refused():
    with pytest.raises(BpuError, match='expected an mmdet detector .* found Linear'):
        capture(torch.nn.Linear(2, 2), IMAGE)


def test_an_output_that_is_constant_is_refused(toy):
    with pytest.raises(BpuError, match='output 1 of the head does not depend on the image'):
        capture(toy(lambda self, image: (image + 1, torch.ones(2))), IMAGE)


def test_an_output_that_was_overwritten_through_another_name_is_refused(toy):

    def body(self, image):
        x = torch.sigmoid(image)
        view = x.view(-1)
        x.mul_(2)
        return view

    with pytest.raises(BpuError, match='output 0 of the head has been overwritten by /mul.0'):
        capture(toy(body), IMAGE)
