"""Batch norms across processes on a CPU: refused where they train, as any other where they do not."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet_bpu.engine.norms_across_processes import refuse_training, shared_norms
from mmdet_bpu.errors import BpuError

SCRIPT = Path(__file__).with_name('run_stage_on_ranks.py')


class Backbone(nn.Module):
    """A norm that trains and one that, as mmdet's ``norm_eval``, never does."""

    def __init__(self, eval_too: bool) -> None:
        super().__init__()
        self.stem, self.frozen = nn.SyncBatchNorm(2), nn.SyncBatchNorm(2)
        self.plain = nn.BatchNorm2d(2)
        self.eval_too = eval_too

    def train(self, mode: bool = True):
        super().train(mode)
        self.frozen.eval()
        if self.eval_too:
            self.stem.eval()
        return self


def test_norms_that_are_to_be_shared():
    assert shared_norms(Backbone(False), None) == ['stem', 'frozen']
    assert shared_norms(Backbone(False), 'torch') == ['stem', 'frozen', 'plain']


def test_one_that_trains_is_refused():
    with pytest.raises(BpuError, match='1 batch norms, the first is stem, .*on accelerators alone'):
        refuse_training(Backbone(False), ['stem', 'frozen'])


def test_frozen_ones_are_not():
    refuse_training(Backbone(True), ['stem', 'frozen'])


def on_two_ranks(cfg, root) -> subprocess.CompletedProcess:
    cfg.dump(root / 'cfg.py')
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node', '2',
         '--standalone', str(SCRIPT), str(root / 'cfg.py'), str(root)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})  # two processes on the CPU


def test_float_training_in_two_processes_says_so_before_it_trains(staged, tmp_path):
    cfg = staged('float', tmp_path / 'tiny_float', train_cfg__max_epochs=1, launcher='pytorch',
                 model__backbone__norm_cfg=dict(type='SyncBN', requires_grad=True),
                 model__backbone__norm_eval=False)
    done = on_two_ranks(cfg, tmp_path)
    assert done.returncode != 0
    assert 'are to share statistics across processes' in done.stderr
    assert not list(tmp_path.glob('rank_*.pth'))


def test_qat_in_two_processes_folds_them(trained, staged, tmp_path):
    cfg = staged('qat', tmp_path / 'tiny_qat', train_cfg__max_epochs=1, launcher='pytorch',
                 load_from=str(trained / 'tiny_calibration' / 'epoch_1.pth'), sync_bn='torch',
                 model__backbone__norm_cfg=dict(type='SyncBN', requires_grad=True))
    done = on_two_ranks(cfg, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f'rank_{rank}.pth', weights_only=True)
                     for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
