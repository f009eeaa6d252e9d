"""Opened multi-head attention against ``nn.MultiheadAttention``, bit for bit."""
import copy

import pytest
import torch
from torch import nn

from mmdet_bpu.models.multihead_attention import OpenMultiheadAttention, open_multihead_attention

LENGTH, SOURCE, BATCH, WIDTH, HEADS = 5, 7, 2, 16, 4
GENERATOR = torch.Generator().manual_seed(0)


def pair(**options):
    """(stock module, the same one opened)."""
    torch.manual_seed(0)
    stock = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
    for parameter in stock.parameters():
        parameter.data.normal_(std=0.3)
    holder = nn.ModuleList([copy.deepcopy(stock)])
    assert open_multihead_attention(holder) == 1
    assert type(holder[0]) is OpenMultiheadAttention
    return stock, holder[0]


def inputs(batch_first=False, kdim=WIDTH, vdim=WIDTH):
    tensors = [torch.randn(n, BATCH, width, generator=GENERATOR)
               for n, width in ((LENGTH, WIDTH), (SOURCE, kdim), (SOURCE, vdim))]
    return [x.transpose(0, 1).contiguous() for x in tensors] if batch_first else tensors


@torch.no_grad()
def assert_equal(stock, opened, qkv, **options):
    expected, expected_weights = stock(*qkv, **options)
    output, weights = opened(*qkv, **options)
    assert output.shape == expected.shape
    assert torch.equal(output, expected)
    assert weights is None if expected_weights is None else torch.equal(weights, expected_weights)


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('average', [False, True])
def test_outputs_and_weights_are_equal_bit_for_bit(batch_first, average):
    assert_equal(*pair(batch_first=batch_first), inputs(batch_first),
                 average_attn_weights=average)


def test_without_biases():
    assert_equal(*pair(bias=False), inputs())


def test_with_keys_and_values_of_other_widths():
    assert_equal(*pair(kdim=12, vdim=20), inputs(kdim=12, vdim=20))


MASKS = {
    'bool': torch.rand(LENGTH, SOURCE, generator=GENERATOR) > 0.6,
    'float': torch.randn(LENGTH, SOURCE, generator=GENERATOR),
    'per head': torch.rand(BATCH * HEADS, LENGTH, SOURCE, generator=GENERATOR) > 0.6,
}


@pytest.mark.parametrize('mask', MASKS)
def test_attention_masks(mask):
    mask = MASKS[mask].clone()
    mask[..., 0] = 0  # nothing is masked everywhere
    assert_equal(*pair(), inputs(), attn_mask=mask)


@pytest.mark.parametrize('with_attention_mask', [False, True])
def test_padding_masks(with_attention_mask):
    padding = torch.zeros(BATCH, SOURCE, dtype=torch.bool)
    padding[1, 4:] = True
    mask = MASKS['bool'].clone()
    mask[..., 0] = False
    assert_equal(*pair(), inputs(), key_padding_mask=padding,
                 attn_mask=mask if with_attention_mask else None)


def test_weights_are_returned_only_if_asked_for():
    stock, opened = pair()
    output, weights = opened(*inputs(), need_weights=False)
    assert weights is None
    qkv = inputs()
    torch.testing.assert_close(opened(*qkv, need_weights=False)[0],
                               stock(*qkv, need_weights=False)[0])


def test_gradients_are_those_of_torch():
    stock, opened = pair()
    qkv = inputs()
    for module in (stock, opened):
        module(*qkv)[0].square().sum().backward()
    for (name, ours), theirs in zip(opened.named_parameters(), stock.parameters(), strict=True):
        if name != 'in_proj_bias':  # the bias of the keys cancels in the softmax
            assert ours.grad.abs().sum() > 0, name
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_dropout_falls_on_the_weights_in_training():
    _, opened = pair(dropout=0.5)
    qkv = inputs()
    still = opened(*qkv)[0]
    assert torch.equal(still, opened(*qkv)[0])
    assert not torch.equal(still, opened.train()(*qkv)[0])


def test_state_dicts_are_interchangeable():
    stock, opened = pair()
    assert list(opened.state_dict()) == list(stock.state_dict())


@pytest.mark.parametrize('options', [dict(add_bias_kv=True), dict(add_zero_attn=True)])
def test_attention_with_extra_keys_is_left_alone(options):
    assert open_multihead_attention(nn.ModuleList([nn.MultiheadAttention(8, 2, **options)])) == 0
