"""Spellings of data movement: equal values, and integers that nothing rounds."""
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import deploy_graph

SHAPE = (4, 6)


# Constants are made on the tensor path.
def mask():
    return torch.eye(*SHAPE).bool()


def places(*indices):
    return torch.tensor(indices)


def assigned(x, index, value):
    x = x * 1.0
    x[index] = value
    return x


def filled_constant(x):
    """A constant, a part of which comes from the image."""
    y = x.new_full((1, 3, *SHAPE), 0.3)
    y[:, 1] = x[:, 0]
    return y


MOVEMENT = {
    'pad of all dimensions': lambda x: F.pad(x, (1, 0, 2, 1, 1, 0, 0, 1)),
    'pad by cutting': lambda x: F.pad(x, (-1, 2, 0, -1)),
    'pad with a number': lambda x: F.pad(x, (1, 0, 2, 1), value=0.3),
    'pad with an infinity': lambda x: F.pad(x, (1, 1), value=float('-inf')).clamp(min=-9),
    'roll': lambda x: torch.roll(x, (1, -2), (2, 3)),
    'roll twice': lambda x: x.roll(3, -1).roll((1, 1), (1, 1)),
    'roll of all elements': lambda x: x.roll(-5),
    'flip': lambda x: x.flip(1, 3),
    'flip of torch': lambda x: torch.flip(x, [-1]),
    'strided slices': lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]], 1),
    'unfold of patches': lambda x: F.unfold(x, 2, stride=2),
    'unfold that leaves a rest': lambda x: F.unfold(x, (3, 4), stride=(3, 4)),
    'unfold with overlap': lambda x: F.unfold(x, 3, padding=1, dilation=1, stride=(2, 1)),
    'unfold of one dimension': lambda x: x.unfold(3, 2, 2),
    'pixel shuffle': lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    'pixel unshuffle': lambda x: F.pixel_unshuffle(x, 2),
    'channel shuffle': lambda x: F.channel_shuffle(x.repeat(1, 2, 1, 1), 3),
    'reversed list': lambda x: x[:, [2, 1, 0]],
    'list': lambda x: x[:, :, [0, 2, 3]],
    'index of two dimensions': lambda x: x[..., places([0, 2], [3, -1])],
    'index of one number': lambda x: x[:, places(1)[0]],
    'index of many runs': lambda x: x.flatten(2)[..., torch.randperm(24)],
    'mask of one dimension': lambda x: x[:, places(1, 0, 1).bool()],
    'index_select': lambda x: x.index_select(2, places(3, 1)),
    'narrow and select': lambda x: x.narrow(-2, 1, 2).select(1, -1),
    'movedim': lambda x: x.movedim(1, -1).swapdims(0, 1),
    'movedim of several': lambda x: torch.movedim(x, (0, 1), (2, 0)),
    'transposed by name': lambda x: x[0, 0].T + x.mT[0, 1],
    'repeat_interleave': lambda x: x.repeat_interleave(2, 1),
    'repeat_interleave of all': lambda x: torch.repeat_interleave(x, 2),
    'repeat_interleave by a list': lambda x: x.repeat_interleave(places(2, 0, 1), 1),
    'tensor_split': lambda x: torch.cat(x.tensor_split(4, -1)[::-1], -1),
    'tensor_split at places': lambda x: torch.cat(x.tensor_split((2, 3), -1)[::2], -1),
    'flattened': lambda x: x.ravel().view_as(x).reshape_as(x).data,
    'stack with a constant': lambda x: torch.stack([x, torch.full((1, 3, 4, 6), 0.2)], 1),
    'where with a number': lambda x: torch.where(mask(), x, 0.3),
    'where of a number': lambda x: torch.where(mask(), -0.3, x),
    'where of a constant': lambda x: x.where(mask(), torch.rand(1, 3, 4, 6)),
    'where of two tensors': lambda x: torch.where(mask(), x, x.flip(-1)),
    'masked fill in place': lambda x: (x * 1.0).masked_fill_(mask(), 0.3),
    'assignment of a number': lambda x: assigned(x, (..., slice(1, 3)), 0.25),
    'assignment of a row': lambda x: assigned(x, (slice(None), 0), x[:, 1]),
    'assignment of a block': lambda x: assigned(
        x, (slice(None), slice(None), slice(2, None), slice(1, 4)), x[:, :, :2, 3:]),
    'assignment that broadcasts': lambda x: assigned(x, (..., slice(0, 2)), x[..., 5:]),
    'assignment with a step of a number': lambda x: assigned(x, (..., slice(0, 6, 2)), 0.5),
    'assignment to a mask': lambda x: assigned(x, mask().expand(1, 3, 4, 6), 0.1),
    'assignment to a constant': filled_constant,
    'meshgrid of constants': lambda x: x[:, :2] + torch.stack(torch.meshgrid(
        torch.arange(4.0), torch.arange(6.0), indexing='ij')),
}


@pytest.mark.parametrize('name', MOVEMENT)
def test_movement_computes_what_torch_does_and_rounds_nothing(through, name):
    run = through(lambda self, x: MOVEMENT[name](x))
    rounded = {row['kind'] for row in run.comparison['ops']} - {'requantize'}
    assert rounded <= {'table', 'add'} and run.comparison['max_lsb'] <= ('add' in rounded)


def test_numbers_put_among_integers_are_on_their_grid_in_training(through):
    run = through(lambda self, x: F.pad(x, (1, 0), value=0.3).masked_fill(
        torch.tensor([False] * 6 + [True]), -0.4) * 0.5)
    scale = run.model.quant.quantizer('image').scale.item() * 0.5
    with torch.no_grad():
        output = run.model(torch.zeros(1, 3, *SHAPE))
    steps = output / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert output[0, 0, 0, 0].item() == pytest.approx(0.15, abs=scale)
    assert output[0, 0, 0, 6].item() == pytest.approx(-0.2, abs=scale)


def test_what_patch_merging_unfolds_are_views_and_one_transpose(through):
    run = through(lambda self, x: F.unfold(x, 2, stride=2))
    assert run.instructions == ['reshape', 'transpose', 'reshape']


@pytest.mark.parametrize('body, message', [
    (lambda x: F.pad(x, (1, 1, 1, 1), mode='reflect'), "padding of mode 'reflect'"),
    (lambda x: x[x > 0], 'indexing with a tensor that depends on the image'),
    (lambda x: x[:, x.flatten(1).topk(2)[1][0] % 3], 'no integer form'),
    (lambda x: x[..., places(0, 1), places(0, 1)], 'more than one tensor or list'),
    (lambda x: x[0, :, mask()], 'a mask of several dimensions'),
    (lambda x: torch.where(x.topk(2)[1].to(torch.bool), x[..., :2], 0), 'a cast from'),
    (lambda x: assigned(x, (..., slice(0, 6, 2)), x[..., :3]), 'a step in an assignment'),
    (lambda x: assigned(x, (..., [0, 2]), x[..., :2]), 'given by a tensor'),
    (lambda x: x.unfold(3, 3, 1), 'windows that overlap'),
    (lambda x: x.masked_fill(mask(), x.mean()), 'the value is a tensor'),
], ids=['reflect', 'mask', 'computed index', 'two lists', 'mask of two', 'computed mask', 'step',
        'list', 'overlap', 'tensor'])
def test_movement_without_an_integer_form_is_refused_with_its_site(toy, body, message):
    with pytest.raises(BpuError, match=rf'/\S+ cannot be lowered: .*{message}'):
        deploy_graph(toy(lambda self, x: body(x)), SHAPE)
