"""Where a stage's weights come from."""
import pytest
import torch

from mmdet_bpu.engine.sources import find_source
from mmdet_bpu.errors import BpuError


def save(path):
    torch.save(dict(state_dict=dict(a=torch.zeros(2)), meta={}), path)


@pytest.mark.parametrize('folder, sibling', [('digits_qat', 'digits_calibration'),
                                             ('qat', 'calibration')])
def test_the_stage_before_is_looked_for_beside_the_run(tmp_path, folder, sibling):
    (tmp_path / sibling).mkdir()
    save(tmp_path / sibling / 'epoch_1.pth')
    found = find_source('qat', str(tmp_path / folder), None)
    assert found == str(tmp_path / sibling / 'epoch_1.pth')


def test_qat_falls_back_to_float_weights(tmp_path):
    (tmp_path / 'a_float').mkdir()
    save(tmp_path / 'a_float' / 'epoch_1.pth')
    assert find_source('qat', str(tmp_path / 'a_qat'), None).endswith('a_float/epoch_1.pth')


def test_load_from_wins(tmp_path):
    assert find_source('qat', str(tmp_path), 'given.pth') == 'given.pth'


def test_without_a_checkpoint_the_message_says_what_to_give(tmp_path):
    with pytest.raises(BpuError) as error:
        find_source('qat', str(tmp_path / 'x_qat'), None)
    for words in ('parameter load_from=FILE', "'calibration' or 'float'", str(tmp_path / 'x_calibration')):
        assert words in str(error.value)
    assert find_source('float', str(tmp_path / 'x_float'), None) is None


def test_a_source_that_does_not_open_gives_way_to_the_one_before(tmp_path):
    folder = tmp_path / 'x_float'
    folder.mkdir()
    save(folder / 'epoch_1.pth')
    (folder / 'epoch_2.pth').write_bytes(b'PK half')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    assert find_source('qat', str(tmp_path / 'x_qat'), None) == str(folder / 'epoch_1.pth')
