"""Our deformable attention against mmcv's own CPU path, bit for bit."""
import copy

import pytest
import torch

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext)

mmcv_attention = pytest.importorskip('mmcv.ops.multi_scale_deform_attn')

from mmdet_bpu.models.deformable_attention import (  # noqa: E402
    StaticDeformableAttention, open_deformable_attention)

LEVELS = [(6, 8), (3, 4), (2, 2)]
QUERIES, BATCH, WIDTH = 5, 2, 32
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


@pytest.fixture
def stock():
    torch.manual_seed(0)
    module = mmcv_attention.MultiScaleDeformableAttention(
        embed_dims=WIDTH, num_heads=4, num_levels=3, num_points=2, dropout=0.0, batch_first=True)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3)
    return module.eval()


@pytest.fixture
def opened(stock):
    return opened_copy(stock)


def opened_copy(stock):
    holder = torch.nn.ModuleList([copy.deepcopy(stock)])
    assert open_deformable_attention(holder) == 1
    assert type(holder[0]) is StaticDeformableAttention
    return holder[0]


def arguments(batch_first=True, coordinates=2):
    count = sum(h * w for h, w in LEVELS)
    query, value = random(BATCH, QUERIES, WIDTH), random(BATCH, count, WIDTH)
    position = random(BATCH, QUERIES, WIDTH)
    if not batch_first:
        query, value, position = (x.transpose(0, 1) for x in (query, value, position))
    shapes = torch.tensor(LEVELS)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    reference = torch.rand(BATCH, QUERIES, len(LEVELS), coordinates, generator=GENERATOR)
    return dict(query=query, value=value, query_pos=position, reference_points=reference,
                spatial_shapes=shapes, level_start_index=starts)


@pytest.mark.parametrize('coordinates', [2, 4], ids=['points', 'boxes'])
@pytest.mark.parametrize('batch_first', [True, False])
def test_outputs_are_equal_bit_for_bit(stock, coordinates, batch_first):
    stock.batch_first = batch_first
    inputs = arguments(batch_first, coordinates)
    with torch.no_grad():
        assert torch.equal(opened_copy(stock)(**inputs), stock(**inputs))


def test_padded_positions_are_ignored_as_in_mmcv(stock, opened):
    inputs = arguments()
    mask = torch.zeros(BATCH, inputs['value'].shape[1], dtype=torch.bool)
    mask[1, ::3] = True
    with torch.no_grad():
        expected = stock(**inputs, key_padding_mask=mask)
        assert torch.equal(opened(**inputs, key_padding_mask=mask), expected)
        assert not torch.equal(opened(**inputs), expected)


def test_identity_and_value_default_to_the_query(stock, opened):
    inputs = arguments()
    count = inputs['value'].shape[1]
    inputs.update(query=random(BATCH, count, WIDTH), query_pos=None, value=None,
                  reference_points=torch.rand(BATCH, count, 3, 2, generator=GENERATOR))
    with torch.no_grad():
        assert torch.equal(opened(**inputs), stock(**inputs))


def test_samples_outside_the_image_are_zero(stock, opened):
    inputs = arguments()
    inputs['reference_points'] = inputs['reference_points'] * 4 - 2
    with torch.no_grad():
        assert torch.equal(opened(**inputs), stock(**inputs))


def test_gradients_are_those_of_mmcv(stock, opened):
    inputs = arguments()
    for module in (stock, opened):
        module(**inputs).square().sum().backward()
    for (name, ours), theirs in zip(opened.named_parameters(), stock.parameters(), strict=True):
        assert ours.grad.abs().sum() > 0, name
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_state_dicts_are_interchangeable(stock, opened):
    assert list(opened.state_dict()) == list(stock.state_dict())
    opened.load_state_dict(stock.state_dict(), strict=True)


def test_a_subclass_of_mmcvs_module_is_left_alone(stock):

    class Custom(mmcv_attention.MultiScaleDeformableAttention):
        pass

    module = torch.nn.Sequential(Custom(embed_dims=WIDTH, num_heads=4))
    assert open_deformable_attention(module) == 0


def test_levels_that_do_not_fit_the_value_are_refused(opened):
    inputs = arguments()
    inputs['spatial_shapes'] = inputs['spatial_shapes'] + 1
    with pytest.raises(ValueError, match='value has 64 positions, but the levels .* have'):
        opened(**inputs)


def test_reference_points_of_three_coordinates_are_refused(opened):
    inputs = arguments(coordinates=3)
    with pytest.raises(ValueError, match='2 or 4 coordinates'):
        opened(**inputs)
