"""QAT under a float teacher, without labels, with scales that move: resumed, averaged, distributed."""
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset

from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.teacher import KEY, Teacher
from mmdet_bpu.engine.training import train
from mmdet_bpu.engine.unlabelled_data import refuse_unlabelled
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.saved_graph import KEY as GRAPH
from mmdet_bpu.graph.scales import weight_scale
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization import quantization_of, quantized_graphs
from mmdet_bpu.quantization.saved_norms import KEY as NORMS
from tests.same_weights import assert_same_weights

PROCESSES = 2


@pytest.fixture(scope='module')
def pictures(tiny_config):
    """A folder of pictures that nobody has annotated."""
    return str(tiny_config.parent / 'data' / 'images')


@pytest.fixture(scope='module')
def calibration(trained):
    return str(trained / 'tiny_calibration' / 'epoch_1.pth')


def unlabelled(staged, work_dir, source, pictures, **overrides):
    """QAT of two epochs without labels, learned scales and reaches that stay in the second, and averages."""
    options = dict(
        load_from=source, train_cfg__val_begin=1000, bpu__qat__labels=False,
        bpu__qat__distill=dict(features=0.5, modules=['neck']),
        bpu__qat__scales=dict(type='learned', lr_mult=100.0),
        bpu__qat__weight_reach=dict(type='learned', lr_mult=100.0),
        bpu__qat__freeze_scales=dict(by='epoch', at=1),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)])
    cfg = staged('qat', work_dir, **{**options, **overrides})
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(type='PictureFolder', folder=pictures, pipeline=pipeline)
    return cfg


@pytest.fixture(scope='module')
def finished(staged, calibration, pictures, tmp_path_factory):
    """Folder of such a run."""
    root = tmp_path_factory.mktemp('unlabelled') / 'tiny_qat'
    train(unlabelled(staged, root, calibration, pictures), str(root))
    return root


def scales(state_dict):
    return {name: value for name, value in state_dict.items() if name.endswith('.scale')}


def reaches(state_dict):
    return {name: value for name, value in state_dict.items() if name.startswith('quant.reach.')}


def test_pictures_teach_and_scales_move_until_they_are_frozen(finished, calibration, trained):
    before, first, second = (read_checkpoint(str(path))['state_dict'] for path in (
        calibration, finished / 'epoch_1.pth', finished / 'epoch_2.pth'))
    # As a run with labels and fixed scales has them, but for the reaches.
    assert list(before) == [name for name in first if name not in reaches(first)]
    assert list(first) == list(second)
    saved = read_checkpoint(str(finished / 'epoch_1.pth'))[GRAPH]['networks'][0]['configs']
    dtypes = {f'quant.quantizers.{row["quantizer"].replace(".", "|")}.scale': row['dtype']
              for row in saved}
    moved = {name for name, scale in scales(first).items() if not torch.equal(scale, before[name])}
    assert moved and {dtypes[name] for name in moved} == {'int8'}
    assert all(scale > 0 for scale in scales(first).values())
    assert all(torch.equal(scale, first[name]) for name, scale in scales(second).items())
    assert not torch.equal(second['backbone.conv1.weight'], first['backbone.conv1.weight']) or \
        not torch.equal(second['neck.convs.0.conv.weight'], first['neck.convs.0.conv.weight'])


def test_reaches_move_until_they_are_frozen_and_are_what_is_deployed(finished, staged, calibration,
                                                                           tmp_path):
    first, second = (read_checkpoint(str(finished / f'epoch_{epoch}.pth'))['state_dict']
                     for epoch in (1, 2))
    assert not reaches(read_checkpoint(calibration)['state_dict'])
    moved = [name for name, reach in reaches(first).items() if (reach < 1).any()]
    assert len(moved) > len(reaches(first)) // 2
    assert all((0 < reach).all() and (reach <= 1).all() for reach in reaches(first).values())
    assert all(torch.equal(reach, first[name]) for name, reach in reaches(second).items())
    # A run whose reaches stay goes on from them.
    cfg = staged('qat', tmp_path / 'x_qat', load_from=str(finished / 'epoch_2.pth'))
    network, = quantized_graphs(BPURunner.from_cfg(cfg).model)
    for op in network.graph.ops:
        if KINDS[op.kind].weight is not None:
            name, of_weight = network.weight_name(op), op.inputs[KINDS[op.kind].weight]
            expected = weight_scale(network.graph.values[of_weight].data, 'int8',
                                    second[f'quant.reach.{name.replace(".", "|")}'])
            assert np.array_equal(network.scales.weights[op.output][1], expected), name


def test_the_checkpoint_names_its_teacher_and_does_not_hold_it(finished, calibration):
    saved = read_checkpoint(str(finished / 'epoch_2.pth'))
    assert saved[KEY]['path'] == calibration
    assert not any('teacher' in name or '.step' in name for name in (
        *saved['state_dict'], *saved['ema_state_dict']))


def test_a_resumed_run_is_the_one_that_was_not_interrupted(staged, calibration, pictures, finished,
                                                           tmp_path):
    work_dir = tmp_path / 'tiny_qat'
    train(unlabelled(staged, work_dir, None, pictures), str(work_dir),
          resume=str(finished / 'epoch_1.pth'))
    files = [folder / 'epoch_2.pth' for folder in (finished, work_dir)]
    assert_same_weights(*files, ('state_dict', 'ema_state_dict'))
    whole, resumed = (read_checkpoint(str(file)) for file in files)
    assert resumed[KEY] == whole[KEY]


def test_a_run_has_its_teacher_or_does_not_go_on(tmp_path):
    files = [str(tmp_path / name) for name in ('first.pth', 'other.pth')]
    for file in files:
        torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), file)
    teacher = Teacher(torch.nn.Linear(2, 2))
    teacher.read(files[0])
    record = dict(teacher.record)
    weight = teacher.model.weight.clone()
    again = Teacher(torch.nn.Linear(2, 2))
    again.read_again({KEY: record}, 'epoch_1.pth', None)
    assert torch.equal(again.model.weight, weight) and again.record == record
    os.replace(files[0], tmp_path / 'moved.pth')
    with pytest.raises(BpuError, match='teacher of epoch_1.pth was read from .*first.pth, which is not '
                                       'there any more.*bpu.qat.distill.teacher'):
        again.read_again({KEY: record}, 'epoch_1.pth', None)
    again.read_again({KEY: record}, 'epoch_1.pth', str(tmp_path / 'moved.pth'))
    with pytest.raises(BpuError, match=f'checksum {record["weights"]}, those in .*other.pth have'):
        again.read_again({KEY: record}, 'epoch_1.pth', files[1])
    with pytest.raises(BpuError, match='says of no float teacher.*bpu.qat.distill asks for one'):
        again.read_again({}, 'epoch_1.pth', None)


def test_a_teacher_that_is_not_there_is_named_by_its_field(staged, calibration, tmp_path):
    runner = BPURunner.from_cfg(staged('qat', tmp_path, load_from=calibration,
                                       bpu__qat__distill=dict(teacher=str(tmp_path))))
    with pytest.raises(BpuError, match='field bpu.qat.distill.teacher: checkpoint .* is a folder; expected'):
        runner.train()


def test_a_teacher_at_home_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), tmp_path / 'first.pth')
    teacher = Teacher(torch.nn.Linear(2, 2))
    teacher.read('~/first.pth')
    assert teacher.record['path'] == str(tmp_path / 'first.pth')
    Teacher(torch.nn.Linear(2, 2)).read_again({KEY: teacher.record}, 'epoch_1.pth', '~/first.pth')


def test_a_teacher_of_ones_own_may_be_a_float_checkpoint(staged, calibration, trained, tmp_path):
    teacher = str(trained / 'tiny_float' / 'epoch_2.pth')
    cfg = staged('qat', tmp_path / 'tiny_qat', load_from=calibration, train_cfg__max_epochs=1,
                 train_cfg__val_begin=1000, bpu__qat__distill=dict(teacher=teacher))
    runner = BPURunner.from_cfg(cfg)
    runner.train()
    history = runner.message_hub.log_scalars
    assert {'train/loss_cls', 'train/loss_distill_cls_scores'} <= set(history)
    assert read_checkpoint(str(tmp_path / 'tiny_qat' / 'epoch_1.pth'))[KEY]['path'] == teacher
    assert quantization_of(runner.model).supervision is None


def test_learned_scales_have_groups_of_their_own_and_the_rest_keeps_its_own(staged, calibration,
                                                                             tmp_path):
    runner = BPURunner.from_cfg(staged(
        'qat', tmp_path / 'x_qat', load_from=calibration,
        bpu__qat__scales=dict(type='learned', lr_mult=7.0),
        bpu__qat__weight_reach=dict(type='learned', lr_mult=3.0)))
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    steps = {id(p) for name, p in runner.model.named_parameters() if name.endswith('.step')}
    of_reach = {id(p) for p in quantization_of(runner.model).reach.parameters()}
    for group, found, rate in zip(groups[-2:], (steps, of_reach), (7, 3)):
        assert found and {id(p) for p in group['params']} == found
        assert group['lr'] == pytest.approx(rate * groups[0]['lr']) and group['weight_decay'] == 0
    assert not (steps | of_reach) & {id(p) for group in groups[:-2] for p in group['params']}
    assert runner.build_optim_wrapper(wrapper) is wrapper and len(groups) == len(
        wrapper.optimizer.param_groups)


@pytest.fixture(scope='module')
def ranks(staged, calibration, pictures, tmp_path_factory):
    """Models of two processes after one such epoch, with batch norms of which a part is folded."""
    root = tmp_path_factory.mktemp('unlabelled_ranks')
    unlabelled(staged, root / 'tiny_qat', calibration, pictures, launcher='pytorch',
               train_cfg__max_epochs=1, model__backbone__norm_eval=False,
               model__backbone__norm_cfg__requires_grad=True,
               bpu__qat__batch_norm=dict(by='iter', at=[1], parts=['backbone.layer2.*'])
               ).dump(root / 'cfg.py')
    script = Path(__file__).with_name('run_stage_on_ranks.py')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node',
         str(PROCESSES), '--standalone', str(script), str(root / 'cfg.py'), str(root)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(root / f'rank_{rank}.pth', weights_only=True) for rank in range(PROCESSES)]


def test_ranks_learn_the_same_scales_and_weights(ranks, calibration):
    before = read_checkpoint(calibration)['state_dict']
    assert not [name for name in ranks[0] if not torch.equal(ranks[0][name], ranks[1][name])]
    assert any(not torch.equal(scale, before[name]) for name, scale in scales(ranks[0]).items())
    assert any((reach < 1).any() for reach in reaches(ranks[0]).values())


def test_ranks_hold_the_same_statistics_of_live_batch_norms(ranks, calibration):
    state, norm = ranks[0], 'backbone.layer3.0.bn1'
    assert state[f'{norm}.live'] and not state['backbone.layer2.0.bn1.live']
    assert state[f'{norm}.num_batches_tracked'] == 2  # steps of an epoch
    before = read_checkpoint(calibration)[NORMS]['norms'][norm.replace('bn', 'conv')]
    moved = (state[f'{norm}.running_mean'] - before['running_mean']).abs()
    assert moved.max() > 0 and torch.equal(
        state[f'{norm}.running_mean'], ranks[1][f'{norm}.running_mean'])


@pytest.mark.parametrize('overrides, words', [
    (dict(bpu__qat__labels=False, bpu__qat__distill=dict(outputs=0)),
     'bpu.qat.distill: expected outputs or features above 0 where bpu.qat.labels is False'),
    (dict(bpu__qat__distill=dict(features=1.0)), 'bpu.qat.distill.modules: expected globs'),
    (dict(bpu__qat__distill=dict(output=1.0)), 'did you mean bpu.qat.distill.outputs'),
    (dict(bpu__qat__distill=dict(outputs=-1)), 'distill.outputs: expected a number from 0 on, found -1'),
    (dict(bpu__qat__scales='learnt'), "bpu.qat.scales: expected one of 'fixed', 'following', 'learned'"),
    (dict(bpu__qat__freeze_scales=dict(at=1)), "freeze_scales: expected None where bpu.qat.scales and "
     "bpu.qat.weight_reach are 'fixed'"),
    (dict(bpu__qat__weight_reach='learnt'), "bpu.qat.weight_reach: expected 'fixed', 'learned', or a dict"),
    (dict(bpu__qat__weight_reach=3), "bpu.qat.weight_reach: expected 'fixed', 'learned', or a dict"),
    (dict(bpu__qat__weight_reach=dict(type='learned', rate=1.0)), "weight_reach: 'learned' has no rate"),
    (dict(bpu__qat__weight_reach=dict(type='fixed', lr_mult=1.0)), "weight_reach: 'fixed' has no lr_mult"),
    (dict(bpu__qat__weight_reach=dict(type='learned', lr_mult=-1.0)),
     'weight_reach.lr_mult: expected a number from 0 on, found -1'),
    (dict(bpu__qat__scales='learned', bpu__qat__freeze_scales=dict(by='step')),
     "freeze_scales.by: expected one of 'epoch', 'iter', found 'step'"),
    (dict(bpu__qat__scales='learned', bpu__qat__freeze_scales=dict(by='epoch')),
     'freeze_scales.at: expected the epoch or iteration .* found none')])
def test_bad_settings_are_refused_in_one_message(staged, calibration, tmp_path, overrides, words):
    cfg = staged('qat', tmp_path / 'x_qat', load_from=calibration)
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in overrides.items()})
    with pytest.raises(BpuError, match=words) as caught:
        train(cfg, str(tmp_path / 'x_qat'))
    assert '\n' not in str(caught.value)


def test_labels_are_not_made_up_for_a_folder_of_pictures(staged, calibration, pictures, tmp_path):
    cfg = unlabelled(staged, tmp_path / 'x_qat', calibration, pictures, bpu__qat__labels=True)
    with pytest.raises(BpuError, match='pipeline of PictureFolder has LoadAnnotations.*labels=False'):
        train(cfg, str(tmp_path / 'x_qat'))
    for dataset in (SimpleNamespace(labelled=False), ConcatDataset([Unlabelled()])):
        with pytest.raises(BpuError, match="field train_dataloader: stage 'qat' reads labels"):
            refuse_unlabelled('train_dataloader', dataset, 'qat')
    refuse_unlabelled('train_dataloader', SimpleNamespace(), 'qat')


class Unlabelled(Dataset):
    """A data set that says so."""

    labelled = False

    def __len__(self):
        return 1
