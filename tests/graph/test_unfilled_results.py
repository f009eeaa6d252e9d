"""Calls of a capture: the shape, dtype and memory of what a call returns, without its values."""
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_bpu.graph.capture import capture
from mmdet_bpu.graph.unfilled_results import SMALL, UnfilledResults

IMAGE = torch.zeros(1, 3, 160, 192)
assert IMAGE.numel() > SMALL

CALLS = {
    'new': (F.conv2d, lambda x: (x, torch.ones(4, 3, 3, 3))),
    'of channels last': (F.relu, lambda x: (x.to(memory_format=torch.channels_last), )),
    'compared': (torch.gt, lambda x: (x, 0)),
    'named parts': (torch.topk, lambda x: (x, 7)),
    'parts': (torch.split, lambda x: (x, 1, 1)),
    'view': (Tensor.permute, lambda x: (x, 0, 2, 3, 1)),
    'copied view': (Tensor.reshape, lambda x: (x.transpose(1, 2), 1, -1)),
    'expanded': (Tensor.expand, lambda x: (x, 5, -1, -1, -1)),
    'itself': (Tensor.contiguous, lambda x: (x, )),
    'unknown to meta': (torch.nonzero, lambda x: (x, )),
}


def parts(result) -> list:
    return [result] if isinstance(result, Tensor) else list(result)


@pytest.mark.parametrize('func, arguments', CALLS.values(), ids=CALLS)
def test_a_result_is_laid_out_as_the_computed_one(func, arguments):
    args = arguments(IMAGE.clone())
    expected, found = func(*args), UnfilledResults().call(func, args, {}, False)
    assert type(found) is type(expected)
    for ours, theirs in zip(parts(found), parts(expected), strict=True):
        assert (ours.shape, ours.stride(), ours.dtype) == (
            theirs.shape, theirs.stride(), theirs.dtype)
        assert (ours is args[0]) == (theirs is args[0])
        shares = [t.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()
                  for t in (ours, theirs)]
        assert shares[0] == shares[1]


def test_a_call_in_place_returns_what_it_overwrites():
    x, results = IMAGE.clone(), UnfilledResults()
    assert results.call(Tensor.add_, (x, 1), {}, True) is x
    assert results.call(F.relu, (x, ), dict(inplace=True), True) is x
    assert results.call(Tensor.__setitem__, (x, 0, torch.ones(3, 160, 192)), {}, True) is None
    assert not x.any()


def test_a_change_of_shape_in_place_is_made():
    x = IMAGE.clone()
    assert UnfilledResults().call(Tensor.squeeze_, (x, ), {}, True) is x and x.ndim == 3


def test_indices_can_be_used():
    indices = UnfilledResults().call(torch.topk, (IMAGE, 7), {}, False).indices
    assert torch.equal(indices, torch.zeros_like(indices))


def test_a_wrong_call_says_what_is_wrong():
    with pytest.raises(RuntimeError, match='expected input.* to have 5 channels'):
        UnfilledResults().call(F.conv2d, (IMAGE, torch.ones(4, 5, 3, 3)), {}, False)


class Computed(TorchDispatchMode):
    """Names of the calls that compute on real memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if isinstance(args[0], Tensor) and args[0].device.type != 'meta':
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_capture_does_not_compute_the_network(toy):
    model = toy(lambda self, image: torch.exp(F.avg_pool2d(image, 1)).flatten(2))
    with Computed() as computed:
        captured = capture(model, IMAGE)
    assert not computed.names & {'exp', 'avg_pool2d'}
    image = torch.rand_like(IMAGE)
    assert torch.equal(captured.run(image)[0], model(image))
