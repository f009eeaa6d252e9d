"""Configs of version 0.1 load, complete to what they were then, and run unchanged.

``version_0_1/configs`` are its files; ``completed.json`` is what that version made of each, without
what comes from mmengine's default runtime.
"""
import json
from pathlib import Path

import mmdet
import pytest

from mmdet_bpu.engine.stages import complete_config, load_config

FOLDER = Path(__file__).parent / 'version_0_1'
CONFIGS = FOLDER / 'configs'
DEMO = CONFIGS / 'demo'
COMPLETED = json.loads((FOLDER / 'completed.json').read_text(encoding='utf-8'))
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py')
               if path.parent.name != '_base_')
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
IMAGES = dict(train=8, val=4)


def plain(value):
    """As JSON has it."""
    return json.loads(json.dumps(value))


def changed(then, now, path=''):
    """Places of ``then`` where ``now`` holds something else."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [place for key, value in then.items()
                for place in changed(value, now.get(key, 'absent'), f'{path}.{key}')]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [place for index, (one, other) in enumerate(zip(then, now))
                for place in changed(one, other, f'{path}[{index}]')]
    return [] if then == now else [(path, then, now)]


def without_labels(then):
    """The config, in calibration with a pipeline that reads none, which nothing there needs."""
    config = json.loads(json.dumps(then['config']))
    if then['settings']['stage'] == 'calibration':
        for step in config['train_dataloader']['dataset']['pipeline']:
            if step['type'] == 'LoadAnnotations':
                step.clear()
                step['type'] = 'WithoutAnnotations'
    return config


def test_every_file_is_recorded():
    assert FILES == sorted(COMPLETED)


@pytest.mark.parametrize('name', FILES)
def test_a_config_completes_to_what_it_was_then(name):
    cfg, then = load_config(str(CONFIGS / name)), COMPLETED[name]
    settings = plain(complete_config(cfg).as_dict())
    # A float stage without deploy preprocessing reads these from the config where it needs them.
    read_later = {key for key in ('input_shape', 'input_format') if settings[key] is None}
    assert not (read_later and settings['deploy_preprocessing'])
    expected = {key: value for key, value in then['settings'].items() if key not in read_later}
    assert changed(expected, settings) == []
    assert changed(without_labels(then), plain(cfg.to_dict())) == []


@pytest.mark.parametrize('name', [name for name in FILES if name.endswith('_float.py')
                                  and not name.startswith('demo')])
def test_its_detector_is_built(name):
    from mmdet_bpu import apis
    cfg = load_config(str(CONFIGS / name))
    model = apis.build_detector(cfg)
    assert type(model).__name__ == 'DeformableDETR'
    assert sum(parameter.numel() for parameter in model.parameters()) > 10e6


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A few digits, packed."""
    from mmdet_bpu import apis
    folder = tmp_path_factory.mktemp('digits')
    made = apis.make_digits(folder / 'images', num_train=IMAGES['train'], num_val=IMAGES['val'])
    for split in IMAGES:
        apis.pack(made / split, made / 'annotations' / f'{split}.json', folder / f'{split}_lmdb')
    return folder


@pytest.fixture(scope='module')
def run(tool_process, data, tmp_path_factory):
    """Function (tool, config, *options) -> stdout of a command that must end well."""
    folder = tmp_path_factory.mktemp('runs')
    train, val = data / 'train_lmdb', data / 'val_lmdb'

    def run_tool(tool, config, *arguments, options=()):
        done = tool_process(
            tool, config, *arguments, '--cfg-options', f'train_dataloader.dataset.lmdb={train}',
            f'val_dataloader.dataset.lmdb={val}', f'test_dataloader.dataset.lmdb={val}',
            f'val_evaluator.lmdb={val}', f'test_evaluator.lmdb={val}',
            'default_hooks.logger.interval=1', *options, cwd=folder)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return run_tool


@pytest.fixture(scope='module')
def float_checkpoint(run, tmp_path_factory):
    """Trained by mmdet's own tool: stock mmengine, which finds the runner by ``runner_type``."""
    folder = tmp_path_factory.mktemp('float')
    out = run(MMDET_TOOLS / 'train.py', DEMO / 'digits_float.py', '--work-dir', folder,
              options=['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'])
    assert 'Epoch(train) [1][1/1]' in out and 'Epoch(val) [1][1/1]' in out
    return folder / 'epoch_1.pth'


@pytest.fixture(scope='module')
def qat_checkpoint(run, float_checkpoint, tmp_path_factory):
    """Trained by our tool; it calibrates first."""
    folder = tmp_path_factory.mktemp('qat')
    out = run('train.py', DEMO / 'digits_qat.py', '--work-dir', folder, '--load-from',
              float_checkpoint)
    assert 'Epoch(train) [1][1/1]' in out
    return folder / 'epoch_1.pth'


def test_the_calibration_runs_by_either_tool(run, float_checkpoint, tmp_path):
    for name, tool in (('stock', MMDET_TOOLS / 'train.py'), ('own', 'train.py')):
        run(tool, DEMO / 'digits_calibration.py', '--work-dir', tmp_path / name,
            options=[f'load_from={float_checkpoint}'])
        assert (tmp_path / name / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('tool, arguments', [
    (MMDET_TOOLS / 'test.py', []), ('test.py', ['--stage', 'qat'])], ids=['stock', 'own'])
def test_qat_is_evaluated_by_either_tool(run, qat_checkpoint, tmp_path, tool, arguments):
    out = run(tool, DEMO / 'digits_qat.py', qat_checkpoint, '--work-dir', tmp_path, *arguments)
    assert 'Epoch(test) [1/1]' in out
