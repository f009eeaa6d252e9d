"""What an artefact says is enough to feed it and to read it."""
from types import SimpleNamespace

import pytest

from mmdet_bpu.engine.predictors import ArtifactPredictor, contract_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import TensorSpec


def executable(**metadata):
    return SimpleNamespace(
        inputs=[TensorSpec('image', (1, 4, 4, 3), 'si8', 0.5)],
        outputs=[TensorSpec('cls_scores', (1, 1, 2), 'si32', 0.01),
                 TensorSpec('bbox_preds', (1, 1, 4), 'si16', 1 / 256)],
        metadata=dict(preprocessing={}, classes=['cat'], **metadata))


def test_the_contract_is_the_metadata_with_the_tensors():
    contract = contract_of(executable(postprocessing=dict(scores='sigmoid', max_per_img=1)))
    assert contract['postprocessing'] == dict(scores='sigmoid', max_per_img=1)
    assert contract['inputs'] == [
        dict(name='image', shape=[1, 4, 4, 3], dtype='si8', scale=0.5)]
    assert contract['outputs'][1] == dict(
        name='bbox_preds', shape=[1, 1, 4], dtype='si16', scale=1 / 256)


def test_a_family_that_no_host_decodes_is_refused_when_it_is_read():
    with pytest.raises(BpuError, match="family.*'unheard'"):
        ArtifactPredictor(executable(postprocessing=dict(family='unheard')), 'hbm')


def test_an_artefact_without_a_contract_is_refused():
    with pytest.raises(BpuError, match='no postprocessing in its metadata'):
        contract_of(executable())
