"""What an artefact says is enough to feed it and to read it."""
from types import SimpleNamespace

import numpy as np
import pytest

from mmdet_bpu.engine.predictors import contract_of, read_outputs
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import TensorSpec


def executable(**metadata):
    return SimpleNamespace(
        inputs=[TensorSpec('image', (1, 4, 4, 3), 'si8', 0.5)],
        outputs=[TensorSpec('cls_scores', (1, 1, 2), 'si32', 0.01),
                 TensorSpec('bbox_preds', (1, 1, 4), 'si16', 1 / 256)],
        metadata=dict(preprocessing={}, classes=['cat'], **metadata))


def test_an_artefact_of_version_0_1_is_read_as_a_detr():
    contract = contract_of(executable(postprocessing=dict(scores='sigmoid', max_per_img=1)))
    assert contract['postprocessing']['family'] == 'detr'
    assert contract['outputs'][1] == dict(
        name='bbox_preds', shape=[1, 1, 4], dtype='si16', scale=1 / 256)
    boxes, scores, labels = read_outputs(
        dict(cls_scores=np.int32([[[0, 100]]]), bbox_preds=np.int16([[[128, 128, 64, 128]]])),
        contract, width=80, height=40)
    np.testing.assert_allclose(boxes, [[30, 10, 50, 30]])
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-1))], rtol=1e-6)
    assert labels.tolist() == [1]


def test_a_family_that_no_host_decodes_is_refused_when_it_is_read():
    contract = contract_of(executable(postprocessing=dict(family='unheard')))
    with pytest.raises(BpuError, match="family 'unheard'"):
        read_outputs({}, contract, 1, 1)


def test_an_artefact_without_a_contract_is_refused():
    with pytest.raises(BpuError, match='no postprocessing in its metadata'):
        contract_of(executable())
