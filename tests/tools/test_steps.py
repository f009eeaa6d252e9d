"""The bars of the commands count as many steps as the verbs tell of."""
import pytest

from mmdet_bpu import apis


@pytest.fixture
def cfg(digits_config):
    return apis.load_config(str(digits_config), 'int')


def test_export_and_deploy_tell_of_their_steps(cfg, checkpoints, tmp_path):
    told = []
    apis.export(cfg, str(checkpoints['calibration']), tmp_path / 'export', told.append)
    assert told == ['load and export', 'write'] and len(told) == apis.EXPORT_STEPS
    told.clear()
    apis.deploy(cfg, str(checkpoints['calibration']), tmp_path / 'deploy', 'nash-p', 'sim',
                told.append)
    assert len(told) == apis.DEPLOY_STEPS and told[-1] == 'compile for nash-p'


def test_check_tells_of_its_steps(cfg):
    told = []
    apis.check_model(cfg, step=told.append)
    assert len(told) == apis.CHECK_STEPS
