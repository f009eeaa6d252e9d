"""The registry of artefacts: a format is one row and one module."""
import sys

import pytest
import torch

from mmdet_bpu import apis
from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.engine.stage_names import EXECUTABLE_STAGES, STAGES, TRAINING_STAGES, VENDOR
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors import Executable, HbmSimulator, Interpreter
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import write_text
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.lowering.artifact_formats import (FORMATS, ArtifactFormat, format_of,
                                                 load_artifact)
from mmdet_bpu.lowering.artifacts import HBM_FILE, INT_FILE

# A format of which nothing is known elsewhere: integers are doubled.
LOADER = '''
class Doubling:
    def __init__(self, path):
        self.networks, self.inputs, self.outputs = [self], [], []
        self.metadata, self.kernel_counts, self.name = {'file': path.name}, {}, 'forward'

    def run(self, inputs):
        return {name: 2 * value for name, value in inputs.items()}
'''


@pytest.fixture
def artifacts(tmp_path):
    """Folder with the transpose of an int8 matrix as text and compiled."""
    builder = OpBuilder([('x', tensor_type((2, 3), 'si8', 0.5))], 'bpu')
    turned = builder.op('bpu.transpose', [builder.inputs[0]], dict(dims=[1, 0]),
                        tensor_type((3, 2), 'si8', 0.5))
    module = builder.finish([('y', turned)])
    write_text(module, tmp_path / INT_FILE)
    write_hbm(program_from_module(module), tmp_path / HBM_FILE, 'nash-e')
    return tmp_path


@pytest.mark.parametrize('name, kind', [(INT_FILE, Interpreter), (HBM_FILE, HbmSimulator)])
def test_each_format_opens_as_its_executable(artifacts, name, kind):
    executable = load_artifact(artifacts / name)
    assert isinstance(executable, kind) and isinstance(executable, Executable)
    x = torch.arange(6, dtype=torch.int8).reshape(2, 3)
    assert torch.equal(executable.run({'x': x})['y'], x.t())


def test_every_format_is_a_stage_that_is_evaluated_and_not_trained():
    assert tuple(FORMATS) == ('int', 'hbm', 'onnx') and EXECUTABLE_STAGES == (*FORMATS, VENDOR)
    assert STAGES == TRAINING_STAGES + EXECUTABLE_STAGES


@pytest.mark.parametrize('name, words', [
    ('none.hbm', 'none.hbm not found'),
    ('model.bin', 'model.bin: expected a model.int.mlir or a model.hbm or a model.onnx')])
def test_a_file_that_is_none_is_refused(tmp_path, name, words):
    with pytest.raises(BpuError, match=words):
        load_artifact(tmp_path / name)


@pytest.fixture
def doubled(tmp_path, monkeypatch):
    """A format ``.doubled``: one row, one module."""
    (tmp_path / 'doubled_format.py').write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = ArtifactFormat('doubled', '.doubled', 'model.doubled', 'doubled_format:Doubling')
    monkeypatch.setitem(FORMATS, row.stage, row)
    (tmp_path / 'model.doubled').write_text('')
    yield tmp_path / 'model.doubled'
    sys.modules.pop('doubled_format', None)


def test_a_new_format_is_opened_by_its_suffix_and_evaluated_under_its_stage(doubled):
    assert format_of(doubled).stage == 'doubled'
    for executable in (load_artifact(doubled), apis.load_executable(None, doubled, 'doubled')):
        assert isinstance(executable, Executable)
        assert executable.run({'x': torch.tensor([3])})['x'].tolist() == [6]
        assert executable.metadata == {'file': 'model.doubled'}


def test_a_stage_refuses_the_file_of_another(doubled):
    with pytest.raises(BpuError, match="stage 'hbm' takes a .hbm file, found .*model.doubled"):
        apis.load_executable(None, doubled, 'hbm')
    with pytest.raises(BpuError, match="stage 'int' takes a .mlir or .pth or .pt file"):
        apis.load_executable(None, doubled, 'int')
