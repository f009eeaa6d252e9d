"""Integer against compiled, and QAT against integer, of one checkpoint."""
import json

import pytest
import torch

from mmdet_bpu import apis
from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.engine.compare_executables import compare_executables
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.hbir.integer_program import program_from_module


@pytest.fixture(scope='module')
def artifacts(trained, staged, tmp_path_factory):
    """Config, checkpoint and folder with model.int.mlir and model.hbm of the tiny QAT run."""
    folder = tmp_path_factory.mktemp('artifacts')
    checkpoint = str(trained / 'tiny_qat' / 'epoch_2.pth')
    exported = apis.export_hbir(staged('qat', folder / 'work'), checkpoint)
    apis.write_export(exported, folder)
    compile_program(program_from_module(exported.integer), folder / 'model.hbm', 'nash-e')
    return staged('qat', folder / 'work'), checkpoint, folder


def test_the_compiled_model_equals_the_integers_and_qat_is_within_one_lsb(artifacts):
    cfg, checkpoint, folder = artifacts
    result = apis.compare_stages(cfg, checkpoint, folder / 'model.int.mlir', folder / 'model.hbm',
                                 qat_images=1)
    assert result['int_equals_hbm'] is True and result['differing'] == []
    assert result['images'] == 8
    assert result['qat_vs_int']['max_lsb'] <= 1
    assert result['qat_vs_int']['above_one_lsb'] == []
    assert 0 < result['qat_vs_int']['differing_share'] < 0.2
    json.dumps(result)


class OneElementOff:
    """An executable that adds 1 to one element of one output, from its second image on."""

    def __init__(self, inner):
        self.inner, self.inputs, self.runs = inner, inner.inputs, 0

    def run(self, inputs):
        outputs = dict(self.inner.run(inputs))
        self.runs += 1
        if self.runs > 1:
            changed = outputs['bbox_preds'].clone()
            changed.view(-1)[3] += 1
            outputs['bbox_preds'] = changed
        return outputs


def test_one_differing_element_is_found_and_named(artifacts):
    cfg, checkpoint, folder = artifacts
    model = apis.load_quantized(cfg, checkpoint)
    simulator = HbmSimulator(folder / 'model.hbm')
    result = compare_executables(cfg, model, simulator, OneElementOff(simulator), limit=3)
    assert result['equal'] is False
    assert result['differing'] == [
        dict(image=1, output='bbox_preds', elements=1),
        dict(image=2, output='bbox_preds', elements=1)
    ]


def test_an_absent_output_counts_as_different(artifacts):
    cfg, checkpoint, folder = artifacts
    model = apis.load_quantized(cfg, checkpoint)
    simulator = HbmSimulator(folder / 'model.hbm')

    class WithoutBoxes:
        inputs = simulator.inputs

        @staticmethod
        def run(inputs):
            return {'cls_scores': simulator.run(inputs)['cls_scores']}

    result = compare_executables(cfg, model, simulator, WithoutBoxes(), limit=1)
    assert result['differing'] == [dict(image=0, output='bbox_preds', elements=-1)]
    assert torch.is_tensor(simulator.run({'image': torch.zeros(simulator.inputs[0].shape,
                                                               dtype=torch.int8)})['bbox_preds'])
