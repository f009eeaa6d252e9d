"""A resumed run is the run that its checkpoint is of: its rules, scales, statistics and norms."""
import shutil

import pytest
import torch

from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.training import train
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import saved_norms, saved_statistics

UNTESTED = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
SCALES = {'learned scales': dict(bpu__qat__scales='learned'),
          'learned reaches': dict(bpu__qat__weight_reach='learned')}


@pytest.fixture(scope='module')
def begun(staged, trained, tmp_path_factory):
    """Function (name, overrides) -> checkpoint of one epoch of QAT, begun at weights scaled by mse."""
    root = tmp_path_factory.mktemp('begun')
    calibrated = root / 'tiny_calibration'
    train(staged('calibration', calibrated, bpu__calibration__weight_observer='mse'), str(calibrated),
          from_statistics=str(trained / 'tiny_calibration' / 'epoch_1.pth'))
    made = {}

    def begin(name='plain', **overrides):
        if name not in made:
            folder = root / name
            train(staged('qat', folder, load_from=str(calibrated / 'epoch_1.pth'),
                         train_cfg__max_epochs=1, **UNTESTED, **overrides), str(folder))
            made[name] = folder / 'epoch_1.pth'
        return made[name]
    return begin


def resumed(staged, file, work_dir, **overrides):
    shutil.copytree(file.parent, work_dir)
    return BPURunner.from_cfg(staged('qat', work_dir, train_cfg__max_epochs=2, resume=True,
                                     load_from=str(work_dir / file.name), **UNTESTED, **overrides))


def test_it_has_the_decisions_of_its_checkpoint_where_the_config_names_none(staged, begun, tmp_path):
    runner = resumed(staged, begun(), tmp_path / 'qat')
    runner.train()
    before, after = (read_checkpoint(str(tmp_path / 'qat' / f'epoch_{epoch}.pth')) for epoch in (1, 2))
    reaches = [name for name in before['state_dict'] if name.startswith('quant.reach.')]
    assert reaches and set(before['state_dict']) == set(after['state_dict'])
    for key in ('networks', 'folded', 'rules'):
        assert before['bpu_quantized'][key] == after['bpu_quantized'][key]


@pytest.mark.parametrize('overrides, words', [
    (dict(bpu__qconfig=[dict(site='neck*', dtype='int16')]), r'bpu.qconfig was \[\], the config says'),
    (dict(bpu__input_shape=(64, 96)), r'input_shape was \(64, 64\), the config says \(64, 96\)')])
def test_other_rules_and_another_input_are_refused(staged, begun, tmp_path, overrides, words):
    with pytest.raises(BpuError, match=f'epoch_1.pth does not fit this config: {words}'):
        resumed(staged, begun(), tmp_path / 'qat', **overrides)


@pytest.mark.parametrize('before, now, words', [
    ('plain', 'learned scales', r'learned no scales, this one learns \d+ scales'),
    ('learned scales', 'plain', r'learned \d+ scales, this one learns no scales'),
    ('learned scales', 'learned reaches', r'learned \d+ scales, this one learns \d+ scales')])
def test_another_kind_of_scales_is_refused(staged, begun, tmp_path, before, now, words):
    file = begun(before, **SCALES.get(before, {}))
    runner = resumed(staged, file, tmp_path / 'qat', **SCALES.get(now, {}))
    with pytest.raises(BpuError, match=f'{words}: resume it with the bpu.qat.scales'):
        runner.train()


def test_a_resumed_calibration_keeps_what_it_saw_and_its_norms(staged, trained, tmp_path):
    folder = tmp_path / 'tiny_calibration'
    shutil.copytree(trained / 'tiny_calibration', folder)
    (folder / 'last_validation').unlink()  # as if it had been killed before
    file = folder / 'epoch_1.pth'
    before = read_checkpoint(str(file))
    train(staged('calibration', folder, default_hooks__checkpoint__save_best='coco/bbox_mAP'), str(folder),
          resume=str(file))
    best, = folder.glob('best_*.pth')
    for after in map(read_checkpoint, map(str, (file, best))):
        seen, again = (each[saved_statistics.KEY] for each in (before, after))
        assert seen['weights'] == again['weights'] and set(seen['tensors']) == set(again['tensors'])
        assert all(torch.equal(tensor['counts'], again['tensors'][name]['counts'])
                   for name, tensor in seen['tensors'].items())
        norms, again = (each[saved_norms.KEY]['norms'] for each in (before, after))
        assert norms and set(norms) == set(again)
        assert all(torch.equal(tensor, again[path][name])
                   for path, norm in norms.items() for name, tensor in norm.items())


def test_one_that_kept_no_norms_gets_no_others(staged, trained, tmp_path):
    older = read_checkpoint(str(trained / 'tiny_calibration' / 'epoch_1.pth'))
    del older[saved_norms.KEY], older[saved_statistics.KEY]
    file = str(tmp_path / 'older.pth')
    torch.save(older, file)
    runner = BPURunner.from_cfg(staged('calibration', tmp_path / 'x', resume=True, load_from=file))
    assert runner.model.quant.norms == {} and runner.model.quant.statistics is None
