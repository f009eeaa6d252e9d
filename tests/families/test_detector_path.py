"""The tensor path of stock detectors."""
import pytest
import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.detector_path import (example_samples, flatten_outputs, output_names,
                                            regions_of)


def test_outputs_in_nested_lists_are_one_flat_tuple():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    assert [x.numel() for x in flatten_outputs(([a, (b, )], c))] == [1, 2, 3]


def test_samples_say_that_nothing_is_padded():
    samples = example_samples(2, (64, 96))
    assert len(samples) == 2
    for sample in samples:
        assert sample.img_shape == sample.batch_input_shape == sample.pad_shape == (64, 96)


def test_outputs_of_detr_are_scores_and_boxes():
    assert output_names(2) == ('cls_scores', 'bbox_preds')
    assert output_names(1) == ('outputs', )
    assert output_names(3) == ('output_0', 'output_1', 'output_2')


def test_what_is_no_detector_is_refused():
    with pytest.raises(BpuError, match='extract_feat and bbox_head, found Linear'):
        regions_of(nn.Linear(1, 1))
