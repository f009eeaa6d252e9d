"""One command line begins a run, goes on with it, and does nothing more when it has finished."""
import errno
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmdet_bpu.engine.hooks import due_validation_hook
from mmdet_bpu.engine.resuming import resume_newest, settle_resume
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.training import AUTO, train
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.engine.whole_checkpoints import full_disk_reported
from mmdet_bpu.errors import BpuError


class Killed(Exception):
    """Stands for the end of the process."""


class KillInValidation(Hook):
    """Ends the run while it validates the second epoch."""

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 2:
            raise Killed


class OwnCheckpointHook(CheckpointHook):
    """A user's own."""


def save(path, **more):
    content = dict(state_dict=dict(a=torch.zeros(2)), meta=dict(iter=1, seed=5), optimizer={},
                   message_hub={})
    torch.save({**content, **more}, path)
    return str(path)


def test_the_work_folder_comes_first_and_load_from_says_only_what_a_run_begins_with(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path / 'w'), load_from='given.pth', resume=True))
    resume_newest(cfg)
    assert (cfg.resume, cfg.load_from) == (False, 'given.pth')
    (tmp_path / 'w').mkdir()
    saved = save(tmp_path / 'w' / 'epoch_1.pth')
    resume_newest(cfg)
    assert (cfg.resume, cfg.load_from) == (True, saved)


def test_resume_with_load_from_in_a_config_is_read_as_mmengine_does(tmp_path):
    (tmp_path / 'w').mkdir()
    save(tmp_path / 'w' / 'epoch_1.pth')
    other = save(tmp_path / 'other.pth')
    cfg = Config(dict(work_dir=str(tmp_path / 'w'), load_from=other, resume=True))
    settle_resume(cfg)
    assert (cfg.resume, cfg.load_from, cfg.randomness.seed) == (True, other, 5)


def test_two_files_to_go_on_from_are_refused(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(BpuError, match='parameter resume=a.pth and parameter load_from=b.pth'):
        train(cfg, str(tmp_path), load_from='b.pth', resume='a.pth')


def test_a_validation_that_was_killed_is_done_when_the_run_goes_on(staged, tmp_path):
    options = dict(default_hooks__checkpoint__save_best='auto')
    runner = BPURunner.from_cfg(staged('float', tmp_path / 'float', **options))
    runner.register_hook(KillInValidation())
    with pytest.raises(Killed):
        runner.train()
    record = tmp_path / 'float' / due_validation_hook.RECORD
    assert record.read_text() == 'epoch 1, iteration 4'
    runner = train(staged('float', tmp_path / 'float', **options), resume=AUTO)
    assert record.read_text() == 'epoch 2, iteration 8'
    saved = read_checkpoint(str(tmp_path / 'float' / 'epoch_2.pth'))
    assert Path(saved['message_hub']['runtime_info']['best_ckpt']).is_file()


def test_a_users_own_checkpoint_hook_keeps_its_name_and_the_old_file(staged, tmp_path,
                                                                     monkeypatch):
    """The second save fails: the first file is still there, and the disk is named."""
    saved = []

    def save_once(runner, out_dir, filename, *args, **kwargs):
        saved.append(filename)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return Runner_save(runner, out_dir, filename, *args, **kwargs)

    Runner_save = Runner.save_checkpoint
    monkeypatch.setattr(Runner, 'save_checkpoint', save_once)
    runner = BPURunner.from_cfg(staged(
        'float', tmp_path / 'float', train_cfg__val_interval=9,
        default_hooks__checkpoint=dict(type=OwnCheckpointHook, interval=1, max_keep_ckpts=1)))
    assert [type(hook).__name__ for hook in runner.hooks if isinstance(hook, OwnCheckpointHook)] \
        == ['OwnCheckpointHook']
    with pytest.raises(BpuError) as error:
        runner.train()
    for words in ('epoch_2.pth cannot be written (No space left on device)', 'make room'):
        assert words in str(error.value)
    assert all(name.startswith('.partial-') for name in saved)
    assert read_checkpoint(str(tmp_path / 'float' / 'epoch_1.pth'))['meta']['epoch'] == 1
    assert (tmp_path / 'float' / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert not list((tmp_path / 'float').glob('.partial-*'))


def test_a_disk_that_is_full_for_a_log_is_told_in_one_sentence():
    with pytest.raises(BpuError, match=r'^w/scalars.json cannot be written \(No space left'):
        with full_disk_reported('w'):
            raise OSError(errno.ENOSPC, 'No space left on device', 'w/scalars.json')
    with pytest.raises(FileNotFoundError):
        with full_disk_reported('w'):
            raise FileNotFoundError(errno.ENOENT, 'No such file', 'w/image.jpg')
