"""Where weights come from, and how they are read and loaded."""
import os
from collections import OrderedDict

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdet_bpu.engine.weights import check_stage, read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError


class Exploit:
    """Unpickled the usual way, it runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command, )


class Gadget:
    """A class that a reader has no business importing."""

    def __init__(self):
        self.values = [1, 2]


def weights() -> OrderedDict:
    base = torch.arange(24, dtype=torch.float32)
    return OrderedDict(
        a=base[:6].view(2, 3),  # shares its storage with b
        b=base[6:].view(3, 6).t(),
        half=torch.randn(3).half(),
        count=torch.tensor(7),
        bf=torch.randn(4).bfloat16(),
        flag=torch.tensor([True, False]))


@pytest.mark.parametrize('archive', [True, False], ids=['zip', 'stream'])
def test_tensors_of_a_foreign_checkpoint_are_read_and_nothing_is_executed(tmp_path, archive):
    path, mark = tmp_path / 'foreign.pth', tmp_path / 'mark'
    expected = weights()
    torch.save(
        dict(state_dict=expected, exploit=Exploit(f'touch {mark}'), gadget=Gadget(),
             meta=dict(epoch=3, gadget=Gadget(), classes=('cat', 'dog')),
             message_hub=dict(loss=HistoryBuffer([1.0], [1]))),
        path, _use_new_zipfile_serialization=archive)
    checkpoint = read_checkpoint(str(path))
    assert not mark.exists()
    assert checkpoint['meta'] == dict(epoch=3, classes=['cat', 'dog'])
    assert list(checkpoint['state_dict']) == list(expected)
    for name, value in expected.items():
        read = checkpoint['state_dict'][name]
        assert torch.equal(read, value) and read.dtype == value.dtype


def test_parameters_count_as_tensors(tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict=dict(nn.Linear(2, 3).named_parameters()), gadget=Gadget()), path)
    assert set(read_checkpoint(str(path))['state_dict']) == {'weight', 'bias'}


def test_a_bare_dict_of_weights_is_a_float_checkpoint(tmp_path):
    torch.save(weights(), tmp_path / 'bare.pth')
    checkpoint = read_checkpoint(str(tmp_path / 'bare.pth'))
    assert set(checkpoint['state_dict']) == set(weights())
    assert stage_of(checkpoint) == 'float'


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 broken'])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / 'broken.pth'
    path.write_bytes(content)
    with pytest.raises(BpuError, match='broken.pth'):
        read_checkpoint(str(path))


@pytest.mark.parametrize('archive', [True, False], ids=['zip', 'stream'])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, archive):
    path = tmp_path / 'short.pth'
    torch.save(dict(state_dict=dict(a=torch.randn(4000)), gadget=Gadget()), path,
               _use_new_zipfile_serialization=archive)
    path.write_bytes(path.read_bytes()[:-6000])
    with pytest.raises(BpuError, match='short.pth'):
        read_checkpoint(str(path))


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(BpuError, match='gone.pth not found'):
        read_checkpoint(str(tmp_path / 'gone.pth'))


def test_the_wrong_stage_is_named():
    with pytest.raises(BpuError, match="q.pth is of stage 'qat'; expected 'float' to calibrate"):
        check_stage(dict(meta=dict(bpu_stage='qat')), ('float', ), 'q.pth', 'calibrate')
