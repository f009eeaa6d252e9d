"""A config that cannot be read, built or fed: exit code 2 and one message that names the field."""
import pytest

from mmdet_bpu.engine.config_errors import present_files, refused_config
from mmdet_bpu.errors import BpuError
from tests.engine.conftest import TINY, draw_coco_set

RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'


@pytest.fixture
def refused(tool_process, tmp_path):
    """Function (tool, *arguments) -> the last line that a command that must refuse writes."""

    def run(tool, *arguments):
        done = tool_process(tool, *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr[-2000:]
        assert 'Traceback' not in done.stderr
        return done.stderr.splitlines()[-1]

    return run


def test_data_that_are_absent(refused):
    assert refused('train.py', RETINANET, '--stage', 'float') == (
        'error: field train_dataloader: data/coco/annotations/instances_train2017.json not found; '
        'put the data there, or set data_root, ann_file and data_prefix to where they are')


def test_annotations_of_an_evaluator_that_are_absent(refused, tmp_path):
    draw_coco_set(tmp_path / 'data')
    config = tmp_path / 'tiny.py'
    config.write_text(TINY.replace('DATA_ROOT', repr(str(tmp_path / 'data'))).replace(
        "/annotations.json')", "/gone.json')"))
    last = refused('train.py', config, '--stage', 'float')
    assert last.startswith(f'error: field val_evaluator: {tmp_path}/data/gone.json not found; put')


@pytest.mark.parametrize('tool, arguments', [
    ('train.py', ['--stage', 'float']), ('train.py', ['--stage', 'qat', '--load-from', 'x.pth']),
    ('check_model.py', [])], ids=['float', 'qat', 'check'])
def test_a_type_that_no_registry_knows(refused, tool, arguments):
    assert refused(tool, RETINANET, *arguments, '--cfg-options', 'model.neck.type=NoNeck') == (
        'error: field model.neck.type: NoNeck is not in the mmdet::model registry; correct the '
        'name, or import the module that registers it by custom_imports')


@pytest.mark.parametrize('option, words', [
    ('model.type=NoNet', 'field model.type: NoNet is not in the mmdet::model registry'),
    ('model.backbone.norm_cfg.type=NoNorm',
     'field model.backbone.norm_cfg.type: NoNorm is not in the registry of models; correct'),
    ('model.backbone.depht=18', "field model.backbone.type: ResNet.__init__() got an unexpected "
     "keyword argument 'depht'; correct the arguments in the config")])
def test_parts_of_a_model_that_cannot_be_built(refused, option, words):
    assert words in refused('check_model.py', RETINANET, '--cfg-options', option)


@pytest.mark.parametrize('line, words', [
    ('x = 1 / 0', 'ZeroDivisionError: division by zero'),
    ('x = y', "NameError: name 'y' is not defined"),
    ('x = (1).real.z', "AttributeError: 'int' object has no attribute 'z'")])
def test_a_config_that_raises_while_it_is_read(refused, tmp_path, line, words):
    (tmp_path / 'config.py').write_text(f'{line}\n')
    last = refused('check_model.py', 'config.py')
    assert last == f'error: config config.py cannot be read: {words}'


class Config(dict):
    """As much of a config as is asked for."""

    def to_dict(self):
        return dict(self)


@pytest.mark.parametrize('error', [KeyError('NoNet is not in the mmdet::model registry'),
                                   TypeError('expected a number')])
def test_what_a_program_raises_by_itself_stays_as_it_is(error):
    with pytest.raises(type(error)) as raised:
        with refused_config(Config()):
            raise error
    assert raised.value is error


def test_only_absent_files_are_a_fault_of_the_data():
    with pytest.raises(PermissionError):
        with present_files('train_dataloader'):
            raise PermissionError('no')
    with pytest.raises(BpuError, match='field train_dataloader: no such shard not found'):
        with present_files('train_dataloader'):
            raise FileNotFoundError('no such shard')
