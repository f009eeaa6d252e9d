"""The tensor path of stock detectors."""
import pytest
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import example_samples


def test_samples_say_that_nothing_is_padded():
    samples = example_samples(2, (64, 96))
    assert len(samples) == 2
    for sample in samples:
        assert sample.img_shape == sample.batch_input_shape == sample.pad_shape == (64, 96)


def test_what_is_no_detector_is_refused():
    with pytest.raises(BpuError, match='extract_feat and bbox_head, found Linear'):
        FAMILIES.of(nn.Linear(1, 1))
