"""The tensor path of stock detectors."""
import pytest
import torch
from torch import nn

from mmdet_bpu.families.detector_path import example_samples, input_channels, run_tensor_path


def test_samples_say_that_nothing_is_padded():
    samples = example_samples(2, (64, 96))
    assert len(samples) == 2
    for sample in samples:
        assert sample.img_shape == sample.batch_input_shape == sample.pad_shape == (64, 96)


def test_outputs_are_flat_and_in_the_heads_order(stock, picture):
    model = stock('retinanet')
    with torch.no_grad():
        classes, boxes = model.bbox_head(model.extract_feat(picture))
        found = run_tensor_path(model, picture)
    assert len(found) == 10
    for ours, stocks in zip(found, [*classes, *boxes], strict=True):
        assert torch.equal(ours, stocks)


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('kind', ['retinanet', 'yolof'])
def test_an_image_has_the_channels_of_the_first_convolution(new_stock, kind, channels):
    changes = dict(backbone=dict(in_channels=channels))
    model = new_stock(kind, **changes)
    assert input_channels(model) == channels
    with torch.no_grad():
        run_tensor_path(model, torch.zeros(1, channels, 64, 64))


def test_yolox_counts_pixels_as_channels_before_its_first_convolution(stock):
    assert stock('yolox').backbone.stem.conv.conv.in_channels == 12
    assert input_channels(stock('yolox')) == 3


def test_four_pixels_of_a_grey_picture_are_four_channels(new_stock):
    model = new_stock('yolox')
    stem = model.backbone.stem.conv.conv
    model.backbone.stem.conv.conv = nn.Conv2d(4, stem.out_channels, 3, padding=1, bias=False)
    assert input_channels(model) == 1


def test_without_a_backbone_an_image_has_three_channels():
    assert input_channels(nn.Identity()) == 3
