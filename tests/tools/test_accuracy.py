"""benchmarks/accuracy.py: cells that are made once, of what they say, and the table of them."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_bpu import apis
from mmdet_bpu.datasets import pack_coco
from mmdet_bpu.datasets.digits import make_digits
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.template import Template

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ['retinanet', 'rtmdet', 'dino']
FEW = ['train_dataloader.batch_size=2', 'model.test_cfg.nms_pre=50',
       'model.test_cfg.score_thr=0.0', 'bpu.calibration.num_batches=1']


@pytest.fixture(scope='module')
def modules():
    """Modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'benchmarks')
        import accuracy
        import accuracy_cells
        import accuracy_methods
        import accuracy_sets
        yield dict(accuracy=accuracy, cells=accuracy_cells, methods=accuracy_methods,
                   sets=accuracy_sets)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A packed set of four digits pictures to train on and two to evaluate."""
    data = tmp_path_factory.mktemp('packed')
    images = make_digits(data / 'images', num_train=4, num_val=2)
    for split in ('train', 'val'):
        pack_coco(images / split, images / 'annotations' / f'{split}.json', data / f'{split}_lmdb')
    return data


@pytest.fixture
def packed(modules, folder):
    return modules['sets'].packed(str(folder), folder, (64, 96), None)


class Steps:
    """Stands in for the commands: writes what each is asked for, and remembers that it ran."""

    def __init__(self):
        self.ran = []

    def __call__(self, name, tool, *arguments):
        self.ran.append(name)
        after = dict(zip(map(str, arguments), arguments[1:]))
        if tool == 'train.py':
            after['--work-dir'].mkdir(parents=True, exist_ok=True)
            checkpoint = after['--work-dir'] / 'epoch.pth'
            checkpoint.write_text(name)
            (after['--work-dir'] / 'last_checkpoint').write_text(str(checkpoint))
        elif tool == 'test.py':
            after['--out'].parent.mkdir(parents=True, exist_ok=True)
            after['--out'].write_text(json.dumps({'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.8}))
        else:
            after['--out'].mkdir(parents=True)
            made = dict(search='searched_qconfig.py').get(name, 'model.hbm')
            (after['--out'] / made).write_text("searched_qconfig = [dict(site='*', dtype='int16')]\n")


@pytest.fixture
def stepping(modules, packed, tmp_path):
    """Function (overrides) -> cells whose steps are only noted, and the notes."""
    def build(overrides=(), seed=0):
        cells = modules['cells'].Cells(packed, 'retinanet', seed, tmp_path, tmp_path / 'results',
                                         None, overrides)
        cells.run = Steps()
        return cells, cells.run.ran
    return build


def test_methods_share_what_they_start_from(stepping):
    cells, ran = stepping()
    cells.cell('default')
    assert ran == ['train_float', 'test_float', 'train_calibration', 'test_int_default',
                   'deploy_default', 'test_hbm_default']
    ran.clear()
    cells.cell('percentile')
    assert ran == ['train_percentile', 'test_int_percentile']
    ran.clear()
    cells.cell('qat')
    assert ran == ['train_qat', 'test_int_qat', 'deploy_qat', 'test_hbm_qat']


def test_searched_dtypes_come_from_a_config_that_inherits_the_search(stepping):
    cells, ran = stepping()
    configs, whole, made = {}, cells.run, [dict(site='*', dtype='int16')]

    def noted(name, tool, config, *arguments):
        configs[name] = config
        if name == 'train_search':
            assert Config.fromfile(config).searched_qconfig == made
        whole(name, tool, config, *arguments)

    cells.run = noted
    cells.cell('search')
    assert ran[-3:] == ['search', 'train_search', 'test_int_search']
    searched = Path(configs['train_search'])
    assert configs['test_int_search'] == searched != configs['train_calibration']
    bases = searched.read_text().splitlines()[0]
    assert str(configs['train_calibration']) in bases and 'searched_qconfig.py' in bases


def test_a_cell_is_made_again_only_of_other_inputs(stepping, tmp_path, modules, monkeypatch):
    first, ran = stepping()
    made = first.cell('minmax')
    ran.clear()
    again, ran = stepping()
    assert again.cell('minmax') == made and ran == []
    (tmp_path / 'results').rename(tmp_path / 'elsewhere')
    assert stepping()[0].cell('minmax') == made  # of its steps' results
    assert ran == []
    monkeypatch.setitem(modules['methods'].METHODS, 'minmax', modules['methods'].Method(
        'statistics', ('bpu.calibration.observer=mse', )))
    other, ran = stepping()
    assert other.cell('minmax')['inputs'] != made['inputs']
    assert ran == ['train_minmax', 'test_int_minmax']
    with_other_rate, ran = stepping(['optim_wrapper.optimizer.lr=0.5'])
    with_other_rate.cell('minmax')
    assert ran == ['train_float', 'test_float', 'train_calibration', 'train_minmax',
                   'test_int_minmax']


def test_what_was_made_of_other_inputs_is_set_aside(stepping, tmp_path, capsys):
    stepping()[0].cell('control')
    made = next(tmp_path.glob('*/float/final.pth'))
    with pytest.raises(BpuError, match='expected KEY=VALUE .*, found nonsense'):
        stepping(['nonsense'])
    assert made.is_file()
    made.write_text('486 seconds of training')
    stepping(['optim_wrapper.optimizer.lr=0.5'])[0].cell('control')
    aside = made.parent.with_name('float.before')
    assert (aside / 'final.pth').read_text() == '486 seconds of training' and made.is_file()
    assert f'what was made of other inputs is in {aside}' in capsys.readouterr().out


def test_a_model_that_finds_nothing_has_map_0(stepping):
    cells, _ = stepping()
    whole = cells.run

    def empty(name, tool, *arguments):
        whole(name, tool, *arguments)
        if tool == 'test.py':
            dict(zip(map(str, arguments), arguments[1:]))['--out'].write_text('{}')

    cells.run = empty
    assert cells.cell('control')['metrics']['control'] == dict(mAP=0.0, mAP50=0.0)


STEP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from demo import Demo
folder = Path(sys.argv[2])
tool = folder / 'step.py'
tool.write_text('import os, time; print(os.getpid(), flush=True); time.sleep(600)')
Demo(folder, folder).run('step', tool)
"""


def test_a_step_ends_with_its_run_and_two_runs_do_not_meet(tmp_path, modules):
    run = subprocess.Popen([sys.executable, '-c', STEP, str(ROOT / 'tools'), str(tmp_path)])
    log, until = tmp_path / 'step.log', time.time() + 120
    try:
        while not (log.is_file() and log.read_text().strip()) and time.time() < until:
            assert run.poll() is None
            time.sleep(0.1)
        with pytest.raises(BpuError, match='another process is at work in'):
            modules['cells'].Demo(tmp_path, tmp_path)
    finally:
        run.kill()
        run.wait()
    step = int(log.read_text())
    while Path(f'/proc/{step}').exists() and time.time() < until:
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(step, signal.SIGTERM)
    modules['cells'].Demo(tmp_path, tmp_path)


def test_cells_of_other_dtypes_are_made_again_but_for_the_float_ones(stepping):
    first, ran = stepping()
    made, control = first.cell('minmax'), first.cell('control')
    again, ran = stepping()
    again.dtypes = 'those of another template'
    assert again.cell('control') == control and 'dtypes' not in control
    other = again.cell('minmax')
    assert ran == ['train_calibration', 'train_minmax', 'test_int_minmax']
    assert {**other, 'dtypes': made['dtypes']} == made != other


def test_another_template_gives_other_dtypes(stepping, monkeypatch):
    plain, seeded = stepping()[0].dtypes, stepping(seed=1)[0].dtypes
    assert plain == seeded
    monkeypatch.setattr(Template, '_is_product', lambda self, value: False)
    assert stepping()[0].dtypes != plain


def test_a_run_that_was_cut_goes_on(stepping):
    cells, ran = stepping()
    whole = cells.run

    def cut(name, *arguments):
        if name == 'train_minmax':
            raise KeyboardInterrupt
        whole(name, *arguments)

    cells.run = cut
    with pytest.raises(KeyboardInterrupt):
        cells.cell('minmax')
    again, ran = stepping()
    again.cell('minmax')
    assert ran == ['train_minmax', 'test_int_minmax']


def test_real_steps_on_a_folder(modules, packed, tmp_path, tool_process):
    cells = modules['cells'].Cells(packed, 'rtmdet', 0, tmp_path, tmp_path / 'results', 1, FEW)
    commands = []

    def run(name, tool, *arguments):
        done = tool_process(tool, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        commands.append(name)

    cells.run = run
    cell = cells.cell('percentile')
    assert commands == ['train_float', 'test_float', 'train_calibration', 'train_percentile',
                        'test_int_percentile']
    assert set(cell['metrics']) == {'float', 'int'} and cell['set'] == packed.folder.name
    assert all(0 <= found['mAP'] <= 1 for found in cell['metrics'].values())


@pytest.mark.parametrize('model', ['deformable', *FAMILIES])
def test_a_set_gives_a_config_its_classes_sizes_and_steps(modules, packed, tmp_path, model):
    cfg = apis.load_config(str(packed.config(model, tmp_path / 'config.py')))
    digits = apis.load_config(str(ROOT / 'configs' / 'demo' / (
        f'digits_{modules["sets"].MODELS[model]}.py')))
    assert cfg.bpu.input_shape == (64, 96) and cfg.model.bbox_head.num_classes == 10
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == tuple('0123456789')
    assert [step.scale for step in cfg.val_dataloader.dataset.pipeline if 'scale' in step] == [(96, 64)]
    sizes = {size for step in cfg.train_dataloader.dataset.pipeline for size in (
        step.get('scale'), step.get('img_scale'), step.get('size')) if size}
    assert sizes <= {(96, 64), (192, 128)}
    assert cfg.train_dataloader.dataset.pipeline[-2].type == 'RandomFlip'
    steps = -(-4 // cfg.train_dataloader.batch_size) * cfg.train_cfg.max_epochs
    ends = [max(scheduler['end'] for scheduler in each.param_scheduler) for each in (cfg, digits)]
    assert steps == ends[0] >= ends[1]
    complete_config(cfg)


@pytest.mark.parametrize('model', FAMILIES)
def test_the_control_is_qat_without_quantization(modules, packed, tmp_path, model):
    cells = modules['cells'].Cells(packed, model, 0, tmp_path, tmp_path)
    schedule = cells._schedule()
    qat, control = (apis.load_config(str(cells.config), 'qat', options) for options in (
        schedule, [*schedule, *modules['cells'].AS_FLOAT]))
    for cfg in (qat, control):
        complete_config(cfg)
    assert (qat.bpu.pop('stage'), control.bpu.pop('stage')) == ('qat', 'float')
    assert (qat.train_cfg.pop('type'), control.train_cfg.pop('type')) == (
        'QATLoop', 'EpochBasedTrainLoop')
    assert (qat.val_cfg.pop('type'), control.val_cfg.pop('type')) == ('QuantValLoop', 'ValLoop')
    assert qat.to_dict() == control.to_dict()
    assert qat.param_scheduler[0].end == packed.qat_steps * qat.train_cfg.max_epochs >= 188
    assert qat.optim_wrapper.optimizer.lr == pytest.approx(
        apis.load_config(str(cells.config)).optim_wrapper.optimizer.lr / 10)


def cell(method, seed, **metrics):
    return dict(set='digits', model='retinanet', seed=seed, method=method, inputs='0', metrics={
        name: dict(mAP=value, mAP50=0.9) for name, value in metrics.items()})


def test_shares_are_of_the_float_model_or_of_the_control(modules):
    results = modules['accuracy'].Results([
        cell('control', 0, float=0.5, control=0.6), cell('default', 0, float=0.5, int=0.49),
        cell('default', 1, float=0.4, int=0.40), cell('qat', 0, float=0.5, int=0.57),
        cell('qat', 1, float=0.4, int=0.44)])
    column = ('digits', 'retinanet')
    assert results.shares(column, 'default') == pytest.approx({0: 0.98, 1: 1.0})
    assert results.shares(column, 'qat') == pytest.approx({0: 0.95})
    assert results.table().splitlines() == [
        '| method | digits, retinanet |', '|---|---|', '| float | 0.450 ± 0.071 |',
        '| control | 0.600 (1.200) |', '| default | 0.445 ± 0.064 (0.990) |',
        '| qat | 0.505 ± 0.092 (0.950) |']


def test_results_that_are_kept_are_of_methods_that_are_known(modules):
    results = modules['accuracy'].Results.of(ROOT / 'benchmarks' / 'results')
    assert all(method in modules['methods'].METHODS for _, _, method in results.by_key)
    if results.by_key:
        table = results.table()
        assert table in (ROOT / 'docs' / 'quantization.md').read_text(encoding='utf-8')


def test_bad_input(modules, tmp_path, monkeypatch, capsys):
    accuracy = modules['accuracy']
    assert accuracy.wanted('digits', 'dino', 1, ['qat', 'minmax'], ['*-1-q*']) == ['qat']
    damaged, other = tmp_path / 'damaged', tmp_path / 'other'
    for folder, name, text in ((damaged, 'digits-x', '{"set"'), (other, 'digits-y', '{}')):
        folder.mkdir()
        (folder / f'{name}.json').write_text(text)
    (tmp_path / 'file').write_text('')
    for arguments, message in (
            (['--set', tmp_path], 'expected a folder with train_lmdb and val_lmdb, found no train_lmdb'),
            (['--seeds', 0], "--seeds: expected a positive whole number, found '0'"),
            (['--table', '--results', tmp_path], 'expected files of cells, found none'),
            (['--results', tmp_path / 'file' / 'cells'], '--results: expected a folder, found the file .*file'),
            (['--table', '--results', damaged], 'digits-x.json is no cell: '),
            (['--table', '--results', other], "digits-y.json is no cell: it lacks set, model")):
        monkeypatch.setattr('sys.argv', ['accuracy.py', *map(str, arguments), '--work-dir',
                                         str(tmp_path / 'work')])
        with pytest.raises(SystemExit, match='2'):
            accuracy.main()
        assert re.search(message, capsys.readouterr().err)


def test_a_failing_step_is_named_with_its_output(modules, packed, tmp_path):
    cells = modules['cells'].Cells(packed, 'dino', 0, tmp_path, tmp_path)
    with pytest.raises(BpuError, match='(?s)test_int ended with exit code 2.*arguments are required: config'):
        cells.run('test_int', 'get_flops.py')
