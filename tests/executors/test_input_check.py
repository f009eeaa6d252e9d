"""Inputs that a network does not take are refused before anything is computed."""
import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.program.program import TensorSpec

SPECS = [TensorSpec('image', (1, 4, 6, 3), 'si8', 0.5)]
TENSOR = torch.zeros(1, 4, 6, 3, dtype=torch.int8)


@pytest.mark.parametrize('inputs, words', [
    (None, 'expected a dict .*found NoneType'), (TENSOR, 'found Tensor'), ([TENSOR], 'found list'),
    ({}, r'found \[\]'), ({5: TENSOR, None: TENSOR}, r"expected the inputs \['image'\], found"),
    ({'image': TENSOR, 5: TENSOR}, r"found \['5', 'image'\]"),
    ({'image': None}, 'found NoneType'), ({'image': TENSOR.numpy()}, 'found ndarray'),
    ({'image': np.array([None])}, 'found ndarray'),
    ({'image': TENSOR.to_sparse()}, 'found torch.sparse_coo on cpu'),
    ({'image': TENSOR.to('meta')}, 'found torch.strided on meta'),
    ({'image': TENSOR.float() * float('nan')}, 'found torch.float32'),
    ({'image': TENSOR[:, :-1]}, r'found torch.int8 of shape \(1, 3, 6, 3\)')], ids=str)
def test_inputs_that_do_not_fit_are_refused(inputs, words):
    with pytest.raises(BpuError, match=words):
        check_inputs(SPECS, inputs)
